"""The measurement of false alarms runs; its figures come of many more seeds."""

from bench import false_alarms


def test_it_counts_cases_numbers_and_alarms() -> None:
    twin = next(twin for twin in false_alarms.twins() if twin.name == "linear")
    found = false_alarms.run(twin, range(2))
    assert set(found) == set(false_alarms.NAMES)
    for of_dtype in found.values():
        assert of_dtype["cases"] > 10
        assert of_dtype["elements"] > 1000
        assert 0 < of_dtype["worst"] < 1
        assert of_dtype["alarms"] == []
