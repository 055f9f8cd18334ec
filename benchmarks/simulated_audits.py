"""A world for audits in which the truth is known: videos, questions, judges with given error rates.

Questions on one video are correlated: truth, false Yes and false No each have intraclass
correlation `correlation` inside a video.
"""

import random
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from judges.audits.sample.stratified_draw import (
    allocation,
    dependent_rounding,
    inclusion_probabilities,
)
from judges.statistics.cluster_bootstrap import (
    Booleans,
    Floats,
    Integers,
    SampleDesign,
    sample_design,
)
from judges.statistics.coefficients import cell_statistics, confusion_features

NUM_SLICES = 4
MAX_PER_VIDEO, LEAST_PER_STRATUM = 2, 5  # the defaults of judges.audit sample
SLICE_FACTORS = np.array([0.4, 0.8, 1.2, 1.6])
SLICE_PREVALENCE = np.array([0.85, 0.8, 0.7, 0.65])


@dataclass(frozen=True)
class World:
    """Error rates of the judge and shape of the data it judged."""

    false_yes: float
    false_no: float
    differs_by_slice: bool = False
    prevalence: float = 0.75
    num_videos: int = 1000
    most_questions: int = 4
    correlation: float = 0.2


@dataclass(frozen=True, eq=False)
class Population:
    """All rows of a build with the judge's verdict and the truth on each."""

    videos: Integers
    slices: Integers
    truth: Floats
    verdicts: Floats

    @property
    def judged_yes(self) -> float:
        """The naive prevalence."""
        return float(self.verdicts.mean())

    def statistics(self, chosen: Booleans | None = None) -> dict[str, float]:
        """The true value of everything that an audit estimates."""
        rows = np.ones(len(self.truth), dtype=bool) if chosen is None else chosen
        cells = confusion_features(self.verdicts[rows], self.truth[rows]).sum(axis=0)
        return {name: float(value) for name, value in cell_statistics(cells, 10**9).items()}


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows of a population that were labelled."""

    rows: Integers
    design: SampleDesign


def make_population(world: World, generator: np.random.Generator) -> Population:
    num_questions = generator.integers(1, world.most_questions + 1, world.num_videos)
    videos = np.repeat(np.arange(world.num_videos), num_questions)
    slices = generator.integers(0, NUM_SLICES, len(videos))
    factor = SLICE_FACTORS[slices] if world.differs_by_slice else np.ones(len(videos))
    prevalence = SLICE_PREVALENCE[slices] if world.differs_by_slice else world.prevalence
    truth = correlated(prevalence, videos, world.correlation, generator)
    says_yes_wrongly = correlated(world.false_yes * factor, videos, world.correlation, generator)
    says_no_wrongly = correlated(world.false_no * factor, videos, world.correlation, generator)
    verdicts = np.where(truth, ~says_no_wrongly, says_yes_wrongly)
    return Population(videos, slices, truth.astype(float), verdicts.astype(float))


def other_population(world: World, generator: np.random.Generator) -> Population:
    """Data on which nobody labels anything: the same judge, other shares of truth."""
    return make_population(replace(world, prevalence=0.55), generator)


def correlated(
    shares: float | Floats, videos: Integers, correlation: float, generator: np.random.Generator
) -> Booleans:
    """Events with these shares and this correlation inside a video.

    A row uses its video's uniform number with probability sqrt(correlation), a fresh one otherwise:
    two rows of a video both use it, and then agree, with probability `correlation`.
    """
    keeps = generator.random(len(videos)) < np.sqrt(correlation)
    of_video = generator.random(videos.max() + 1)[videos]
    uniforms = np.where(keeps, of_video, generator.random(len(videos)))
    return uniforms < shares


def draw_sample(
    population: Population, num_labels: int, seed: int, *, is_stratified: bool = True
) -> Sample:
    """As `judges.audit sample` draws and `report` weights them; or a plain random sample."""
    count = len(population.truth)
    if not is_stratified:
        rows = np.random.default_rng(seed).choice(count, num_labels, replace=False)
        weights = np.full(num_labels, count / num_labels)
        return Sample(rows, sample_design(population.videos[rows], weights=weights))
    strata = [
        f"{verdict}/{part}"
        for verdict, part in zip(population.verdicts, population.slices, strict=True)
    ]
    videos = [str(video) for video in population.videos]
    wanted = allocation(Counter(strata), num_labels, LEAST_PER_STRATUM)
    chances = inclusion_probabilities(strata, videos, wanted, MAX_PER_VIDEO)
    is_drawn = dependent_rounding(videos, strata, chances, random.Random(seed))
    rows = np.flatnonzero(is_drawn)
    weights, verdicts = 1 / np.array(chances)[rows], population.verdicts[rows]
    for verdict in np.unique(verdicts):
        chosen = verdicts == verdict
        weights[chosen] *= (population.verdicts == verdict).sum() / weights[chosen].sum()
    design = sample_design(population.videos[rows], weights=np.maximum(weights, 1), strata=verdicts)
    return Sample(rows, design)
