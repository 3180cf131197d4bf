import numpy as np

from tamis.models.class_scores import ClassScores, Verdict


def test_what_lies_in_two_classes_is_ambiguous_and_what_lies_in_one_or_none_is_not() -> None:
    distance = np.array([[0.3, 0.6, 2.0], [0.9, 5.0, 0.95], [0.2, 1.01, 3.0], [1.2, 1.3, 1.4], [0.0, 0.0, 9.0]])
    ambiguity = Verdict(np.array(["a", "b", "c"]), np.full((5, 3), 1 / 3), distance).ambiguity
    np.testing.assert_allclose(ambiguity, [0.5, 0.9 / 0.95, 0, 0, 0])


def test_figures_of_merit_count_unknown_against_recovery_and_not_against_purity() -> None:
    scores = ClassScores.of(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 1, 1]), 2)
    np.testing.assert_allclose(scores.recovery, [0.5, 1.0])
    np.testing.assert_allclose(scores.purity, [1.0, 2 / 3])
    assert scores.balanced_accuracy == 0.75
