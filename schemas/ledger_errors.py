"""What can go wrong with a ledger file. Each message is one sentence for the user."""


class LedgerError(Exception):
    """The ledger cannot be used as asked."""


class LedgerLockedError(LedgerError):
    """Another process (or this one) holds the file."""


class LedgerVersionError(LedgerError):
    """The file's schema is newer than this program, or was made by another line of migrations."""


class LedgerWriteError(LedgerError):
    """The writer thread failed. What was committed before is safe, later rows are not stored."""
