"""Records of a small grid for tests of tables, their numbers worked out by hand, and figures of others beside them."""

import pandas

# Neither poisons nor methods stand in alphabetical order, and pst was not run on clean data. By hand:
#   tap_4/pst   70 74 78  mean 74, deviations -4 0 4, sd = sqrt(32 / 2) = 4; of clean erm 74 / 90 = 82.222222 %
#   tap_4/erm   20 22     mean 21, deviations -1 1,   sd = sqrt(2 / 1) = 1.414214;     21 / 90 = 23.333333 %
#   clean/erm   90        one seed: no sd; 100 %
#   oracle      tap_4/pst 75 77 79: mean 77, sd 2; tap_4/erm 31 31: mean 31, sd 0;
#               epochs (50 + 52 + 57) / 3 = 53, (3 + 4) / 2 = 3.5
#   trapped     0 of 3, 1 of 2, 0 of 1; one of the three cannot be told, and its share kept is missing
COLUMNS = [
    "poison",
    "method",
    "seed",
    "accuracy",
    "oracle_accuracy",
    "oracle_epoch",
    "passes",
    "acm",
    "kept",
    "verdict",
]
ROWS = [
    ("tap_4", "pst", 0, 70.0, 75.0, 50, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 1, 74.0, 77.0, 52, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 2, 78.0, 79.0, 57, 1.25, 0.25, None, "cannot tell"),
    ("tap_4", "erm", 0, 20.0, 31.0, 3, 1.0, 0.75, 0.25, "trapped"),
    ("tap_4", "erm", 1, 22.0, 31.0, 4, 1.0, 0.25, 0.75, "not trapped"),
    ("clean", "erm", 0, 90.0, 90.5, 59, 1.0, 0.25, 0.75, "not trapped"),
]

# Rows that two tables need beside these. By hand:
#   clean_cost  erm 90 92: mean 91, sd sqrt(2); pst 88 93 80: mean 87, deviations 1 6 -7, sd = sqrt(86 / 2) = 6.6;
#               pst minus erm where both ran: -2 1, mean -0.5, sd = sqrt(4.5) = 2.1; passes (1 + 1 + 1.75) / 3 = 1.25
#   relative    of 90: pst 77.8 82.2 86.7, mean 82.2, sd 4.4; erm 22.2 24.4, mean 23.3, sd 1.6; on em 45 / 90 = 50 %;
#               mean over poisons: erm (23.3 + 50) / 2 = 36.7, pst a gap because it was not run on em
#   benchmark   clean as in clean_cost. pst 74 on tap_4, 60 66 on em: seed 0 (70 + 60) / 2 = 65, seed 1 (74 + 66) / 2 =
#               70, seed 2 has no em, so the mean (74 + 63) / 2 = 68.5 has no sd; worst em. erm 21 and 45 47: seeds
#               (20 + 45) / 2 = 32.5 and (22 + 47) / 2 = 34.5, mean 33.5, sd sqrt(2); worst tap_4. gray, on em alone,
#               has no mean and rank. low 21 30, one seed, no sd. Ranks of pst, erm, low on tap_4 1 2.5 2.5, on em
#               1 2 3: 1, 2.25, 2.75. passes of pst over its 8 cells (5 * 1.25 + 1 + 1 + 1.75) / 8 = 1.25
#   paired      tap_4/pst minus erm 50 52: mean 51, half width t(0.975, 1) sqrt(2) / sqrt(2) = 12.7; on em 15 19: 17,
#               12.7 * 2 = 25.4; tap_4/low 1, one pair; em/low -15, one; em/gray none
MORE = {
    "clean_cost": [
        ("clean", "erm", 1, 92.0, 92.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 0, 88.0, 88.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 1, 93.0, 93.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 2, 80.0, 89.0, 40, 1.75, 0.25, 0.75, "not trapped"),
    ],
    "relative": [("em", "erm", 0, 45.0, 50.0, 5, 1.0, 0.75, 0.25, "trapped")],
}
MORE["benchmark"] = [
    *MORE["clean_cost"],
    *MORE["relative"],
    ("em", "erm", 1, 47.0, 50.0, 5, 1.0, 0.75, 0.25, "trapped"),
    ("em", "pst", 0, 60.0, 60.0, 5, 1.25, 0.75, 0.25, "trapped"),
    ("em", "pst", 1, 66.0, 66.0, 5, 1.25, 0.75, 0.25, "trapped"),
    ("em", "gray", 2, 80.0, 80.0, 5, 1.0, 0.75, 0.25, "trapped"),
    ("em", "low", 0, 30.0, 30.0, 5, 2.0, 0.75, 0.25, "trapped"),
    ("tap_4", "low", 0, 21.0, 21.0, 5, 2.0, 0.75, 0.25, "trapped"),
]
MORE["paired"] = MORE["benchmark"]
MORE["published"] = [*MORE["relative"], ("em", "erm_gray", 0, 36.0, 36.0, 5, 1.0, 0.75, 0.25, "trapped")]
THEIRS = """\
dataset,poison,method,network,accuracy,n,clean,paper,place,note
cifar10,tap,erm,ResNet-18,9.5,5,94.0,"One, 2025",Table 1,
cifar10,tap,erm,ResNet-50,8.25,,,Two,,five epochs
cifar10,em,gray,ResNet-18,92.0,1,,Two,,
cifar100,em,erm,ResNet-18,10,1,,Two,,
"""


def frame(rows: list[tuple]) -> pandas.DataFrame:
    """Records of entries that are called what they use."""
    made = pandas.DataFrame(rows, columns=COLUMNS).assign(dataset="cifar10", arch="resnet18")
    return made.assign(method_use=made["method"], poison_use=made["poison"])
