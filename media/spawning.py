"""Starting decoder processes that know nothing of the program which started them.

`multiprocessing` lets a spawned process import the main program's file again. That costs time with
every new process, runs a user's script twice when it lacks the `if __name__ == "__main__"` guard,
and fails where the program has no file (a script on standard input). Decoders need none of it.
"""

import io
import os
import signal
from multiprocessing import context, popen_spawn_posix, process, resource_tracker, spawn, util
from multiprocessing.reduction import dump

_MAIN_PROGRAM = ("init_main_from_name", "init_main_from_path")


class _Popen(popen_spawn_posix.Popen):
    """The standard library's `popen_spawn_posix.Popen`, without the main program's data."""

    _fds: list[int]

    def _launch(self, process_obj: process.BaseProcess) -> None:
        tracker = resource_tracker.getfd()
        assert tracker is not None  # getfd starts it
        self._fds.append(tracker)
        preparation = spawn.get_preparation_data(process_obj.name)
        for key in _MAIN_PROGRAM:
            preparation.pop(key, None)
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            dump(preparation, buffer)
            dump(process_obj, buffer)
        finally:
            context.set_spawning_popen(None)

        child_reads, parent_writes = os.pipe()
        parent_reads, child_writes = os.pipe()
        command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_reads)
        self._fds.extend([child_reads, child_writes])
        # An interpreter that Ctrl-C reaches while it starts prints a traceback; decoders end with
        # their parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.pid = util.spawnv_passfds(os.fsencode(spawn.get_executable()), command, self._fds)
            self.sentinel = parent_reads
            with open(parent_writes, "wb", closefd=False) as pipe:
                pipe.write(buffer.getbuffer())
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            # The parent's two ends stay open as long as the process object lives: a child sees its
            # parent's end by the closing of the pipe.
            self.finalizer = util.Finalize(self, _close, (parent_reads, parent_writes))
            os.close(child_reads)
            os.close(child_writes)


class _Process(context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> _Popen:
        return _Popen(process_obj)


class BareSpawnContext(context.SpawnContext):
    """The "spawn" start method for processes that do not need the main program."""

    Process = _Process


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
