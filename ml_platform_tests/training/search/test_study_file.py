from pathlib import Path

from ml_platform.training.search.study_file import KEPT, kept_study, study_key
from ml_platform_tests.toy_world import shop_spec


def test_a_study_is_named_by_all_that_changes_a_trial() -> None:
    spec = shop_spec()
    same = shop_spec(tuning={**spec.tuning.model_dump(), "executor": "ray"})
    assert study_key(spec, "d") == study_key(shop_spec(), "d") == study_key(same, "d")
    others = [study_key(spec, "e"), study_key(shop_spec(families=["lightgbm"]), "d")]
    assert len({study_key(spec, "d"), *others}) == 3


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    with kept_study(tmp_path, "a", higher_is_better=True) as study:
        study.set_user_attr("said", 1)
    journal = tmp_path / "a.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 1, "wor')
    (tmp_path / "a.journal.lock").symlink_to("a.journal")  # a writer of Optuna's was killed
    with kept_study(tmp_path, "a", higher_is_better=True) as study:
        assert study.user_attrs == {"said": 1}
        study.set_user_attr("said", 2)
    with kept_study(tmp_path, "a", higher_is_better=True) as study:
        assert study.user_attrs == {"said": 2}


def test_the_newest_studies_are_kept_and_one_in_use(tmp_path: Path) -> None:
    with kept_study(tmp_path, "used", higher_is_better=True) as study:
        for number in range(KEPT + 2):
            with kept_study(tmp_path, f"other-{number}", higher_is_better=False):
                pass
        study.set_user_attr("said", 1)
        names = {path.stem for path in tmp_path.glob("*.journal")}
        assert names == {"used", *(f"other-{number}" for number in range(2, KEPT + 2))}
    with kept_study(tmp_path, "used", higher_is_better=True) as study:
        assert study.user_attrs == {"said": 1}
