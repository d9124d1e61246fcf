"""How well the EMP search finds metal-poor stars: real validation stars by XP alone, and a simulated survey.

Run: python tests/benchmarks/emp.py ATLAS [--known known_metal_poor.csv]
     python tests/benchmarks/emp.py ATLAS --neighbours

On an atlas with real labelled XP stars: average precision at [Fe/H] < -2 on validation stars
(split 8), all evidence together and each part alone; what LAMOST spectra say is left out, since
those of the demonstration are simulated from the very labels. Stars without a label that the
file of known metal-poor stars holds: their place among all unlabelled ones. On a simulated
survey (`specclip-search simulate survey`): completeness and purity at [Fe/H] < -3 and -2, and
the same for stars rich in carbon. With --neighbours: [Fe/H] of the nearest labelled real stars, by
XP, of validation stars below -2.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of
from specclip_search.queries.emp.combination import SOURCES
from specclip_search.queries.emp.estimates import log_odds
from specclip_search.queries.emp.known_stars import read_known
from specclip_search.queries.emp.neighbour_estimate import neighbours_say
from specclip_search.queries.emp.scores import Evidence, combine, gather_evidence, score_stars
from specclip_search.queries.evaluation.measures import Measured, average_precision, ranked, share
from specclip_search.queries.evaluation.truth import Truth
from specclip_search.queries.space.space import Space, open_space
from specclip_search.queries.views.labels import row_labels, star_labels
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.surveys import LRS, XP

SNR_BINS = ((0, 40), (40, 80), (60, np.inf), (80, np.inf))
NEAREST = 20
CARBON_RICH = 0.7


def xp_alone(evidence: Evidence, below: float) -> Evidence:
    """The same as if no star had a LAMOST spectrum."""
    parts = {name: np.full(len(v), np.nan) if name.startswith("lrs_") else v for name, v in evidence.parts.items()}
    odds = evidence.odds.copy()
    odds[0] = np.nan
    probability, feh, _ = neighbours_say(evidence.stars, parts, evidence.label, below, [])
    odds[3, 0] = np.where(np.isfinite(feh), log_odds(probability), np.nan)
    return Evidence(evidence.stars, parts, odds, evidence.feh, evidence.feh_err, evidence.label, evidence.notes)


def show(one: Measured) -> None:
    """One line."""
    print(f"{one.metric:34} {one.group:42} {one.value:6.3f}  [{one.low:.3f}, {one.high:.3f}]  n = {one.n}")


def on_real_stars(space: Space, below: float, known: str | None, sample: int | None) -> None:
    """Validation stars, and known ones without a label."""
    ids = np.asarray(space.keys(XP).source_id)
    evidence = gather_evidence(space, (below,), only=sampled(space, ids[split_of(ids) == VALIDATION_SPLIT], sample))
    evidence = xp_alone(evidence, below)
    stars = evidence.stars
    label = star_labels(space.atlas, stars.source_id, ["feh"]).get("feh", np.full(len(stars), np.nan))
    real = stars.has(XP) & (stars.source_id < FIRST_SIMULATED_ID)
    probability = combine(evidence, 0, below, space.model_digest())
    for name, split in (("validation stars", (VALIDATION_SPLIT,)), ("training stars (estimator saw them)", range(8))):
        held = real & np.isfinite(label) & np.isin(split_of(stars.source_id), split)
        poor = label < below
        metric = f"AP of [Fe/H] < {below:g}"
        show(ranked(metric, f"{name}: all XP evidence", probability[held], poor[held], 0))
        for i, part in enumerate(SOURCES):
            spoken = held & np.isfinite(evidence.odds[i, 0])
            if spoken.any():
                show(ranked(metric, f"{name}: {part}", evidence.odds[i, 0, spoken], poor[spoken], 0))
        for low, high in SNR_BINS:
            chosen = held & (stars.snr[XP] >= low) & (stars.snr[XP] < high)
            if not (chosen & poor).any():
                continue
            show(ranked(metric, f"{name}: S/N {low}-{high}", probability[chosen], poor[chosen], 0))
        print(f"    expected {probability[held].sum():.1f}, true {poor[held].sum()}")
    if known is not None:
        places(space, evidence, real & ~np.isfinite(label), probability, known)


def places(space: Space, evidence: Evidence, unlabelled: np.ndarray, probability: np.ndarray, known: str) -> None:
    """Where known metal-poor stars stand among the unlabelled ones."""
    found = read_known(space.atlas, known)
    order = np.lexsort((evidence.parts["xp_net_feh"], -np.where(unlabelled, probability, -1.0)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(1, len(order) + 1)
    for source_id, feh in zip(found.source_id, found.feh, strict=True):
        row = np.flatnonzero((evidence.stars.source_id == source_id) & unlabelled)
        for i in row:
            print(f"known star {source_id} of [Fe/H] = {feh:.2f}: place {place[i]} of {unlabelled.sum()} unlabelled, "
                  f"probability {probability[i]:.3f}")  # fmt: skip


def nearest_of_poor(space: Space, below: float) -> None:
    """[Fe/H] of the 20 nearest labelled real XP stars of each validation star below the limit."""
    keys, index = space.keys(XP), space.index(XP)
    source_id = np.asarray(keys.source_id)
    label = row_labels(space.atlas, keys, XP, ("feh",))["feh"]
    split = split_of(source_id)
    real = (source_id >= 0) & (source_id < FIRST_SIMULATED_ID) & np.isfinite(label)
    asked = np.flatnonzero(real & (split == VALIDATION_SPLIT) & (label < below))
    allowed = np.flatnonzero(real & (split != ACCEPTANCE_SPLIT))
    answer = index.search(index.vectors(asked), NEAREST + 5, query_modality=XP, rows=allowed, exclude=asked[:, None],
                          centred=True)  # fmt: skip
    medians, everyone = [], []
    for row, found in zip(asked, answer.rows, strict=True):
        near = label[[one for one in found if one >= 0 and source_id[one] != source_id[row]][:NEAREST]]
        medians.append(float(np.median(near)))
        everyone.append(near)
    together = np.concatenate(everyone)
    low, high = np.quantile(medians, [0.16, 0.84])
    print(f"{len(asked)} validation stars below {below:g}: median [Fe/H] of all their {NEAREST} nearest "
          f"{np.median(together):.2f}; of each star's median the middle {np.median(medians):.2f}, "
          f"two thirds within {low:.2f} and {high:.2f}")  # fmt: skip
    show(share(f"neighbours of [Fe/H] < {below:g}", "stars whose neighbours' median is below -1.9",
               np.array(medians) < -1.9))  # fmt: skip


def sampled(space: Space, wanted: np.ndarray, sample: int | None) -> np.ndarray | None:
    """The wanted stars and a random sample of the others, which teach what neighbours' words are worth; None: all."""
    if sample is None:
        return None
    everyone = np.unique(np.concatenate([np.asarray(space.keys(name).source_id) for name in space.modalities]))
    others = np.setdiff1d(everyone[everyone >= 0], wanted)
    chosen = np.random.default_rng(0).choice(others, min(sample, len(others)), replace=False)
    return np.concatenate([wanted, chosen])


def on_survey(space: Space, truth: Truth, below: float, sample: int | None) -> None:
    """Completeness and purity at equal list length, all stars and those of LAMOST S/N > 20."""
    started = time.process_time()
    scores = score_stars(space, below, only=sampled(space, truth.source_id, sample))
    spent = time.process_time() - started
    row = truth.stars(scores.stars.source_id)
    snr = scores.stars.snr[LRS]
    for name, chosen in (("all", row >= 0), ("S/N > 20", (row >= 0) & (snr > 20))):
        poor = truth.numbers["true_feh"][row[chosen]] < below
        feh = np.nan_to_num(scores.feh[chosen], nan=9.0)
        order = np.lexsort((feh, -scores.probability[chosen]))
        listed = np.zeros(len(order), bool)
        listed[order[: poor.sum()]] = True
        metric = f"[Fe/H] < {below:g}, {name}"
        show(share(metric, "completeness = purity, as many as there are", listed[poor]))
        rich = truth.numbers["true_c_fe"][row[chosen]] > CARBON_RICH
        if (poor & rich).any():
            show(share(metric, "completeness, rich in carbon", listed[poor & rich]))
            marked = np.array(["carbon_enhanced" in words for words in scores.flags[chosen]])
            show(share(metric, "marked so, of these in the list", marked[poor & rich & listed]))
        likely = scores.probability[chosen] > 0.5
        show(share(metric, "completeness at probability > 0.5", likely[poor]))
        show(share(metric, "purity at probability > 0.5", poor[likely]))
        print(f"{metric:34} average precision {average_precision(scores.probability[chosen], poor):.3f}, "
              f"expected {scores.probability[chosen].sum():.1f}, true {poor.sum()}")  # fmt: skip
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(scores.stars):,} stars in {spent:.1f} CPU s, {rss:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas")
    parser.add_argument("--known", default=None)
    parser.add_argument("--below", type=float, nargs="*", default=None)
    parser.add_argument("--neighbours", action="store_true")
    parser.add_argument("--sample", type=int, default=None,
                        help="neighbours of so many other stars alone; those not looked at are judged without")
    options = parser.parse_args()
    space = open_space(Atlas(options.atlas))
    if options.neighbours:
        nearest_of_poor(space, (options.below or (-2.0,))[0])
        return
    try:
        truth = Truth.read(space.atlas)
    except QueryError:
        for below in options.below or (-2.0,):
            on_real_stars(space, below, options.known, options.sample)
        return
    for below in options.below or (-3.0, -2.0):
        on_survey(space, truth, below, options.sample)


if __name__ == "__main__":
    main()
