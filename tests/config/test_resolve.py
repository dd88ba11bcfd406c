"""Layers, origins, paths, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tiny_task import TinyTask

from medtool.config import preset_text, resolve, settings_from_document, write_preset
from medtool.core.errors import PresetError, UnknownNameError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def faults_of(**arguments) -> list[str]:
    with pytest.raises(PresetError) as caught:
        resolve(TinyTask, **arguments)
    return list(caught.value.faults)


def test_without_files_the_schema_speaks(folder):
    resolved = resolve(TinyTask, None)
    assert resolved.settings == TinyTask.settings_type()
    assert resolved.preset_name == ""
    assert resolved.files == ()
    assert set(resolved.origins.values()) == {"schema default"}


def test_a_section_given_in_part_keeps_the_tasks_own_defaults(folder):
    write("p.toml", "[train]\nseed = 3\n")
    train = resolve(TinyTask, "p.toml").settings.train
    # TinySettings says 3 epochs where the shared section says 30.
    assert (train.seed, train.epochs, train.batch_cases) == (3, 3, 2)


def test_later_layers_win_and_say_so(folder):
    write("presets/tiny/base.toml", "[train]\nepochs = 10\nseed = 1\nfolds = 3\nkeep = 2\n")
    write("presets/tiny/mine.toml", 'extends = "base"\n[train]\nseed = 2\nfolds = 4\nkeep = 3\n')
    write("medtool.toml", "[train]\nfolds = 6\nkeep = 4\n[tasks.tiny.train]\nkeep = 7\n")
    resolved = resolve(TinyTask, "mine", assignments=["train.batch_cases=9"])
    train = resolved.settings.train
    assert (train.epochs, train.seed, train.folds, train.keep, train.batch_cases) == (
        (10, 2, 6, 7, 9)
    )
    assert resolved.origins["train.epochs"] == "presets/tiny/base.toml:2"
    assert resolved.origins["train.seed"] == "presets/tiny/mine.toml:3"
    assert resolved.origins["train.folds"] == "medtool.toml:2"
    assert resolved.origins["train.keep"] == "medtool.toml:5"
    assert resolved.origins["train.batch_cases"] == "command line"
    assert resolved.origins["train.momentum"] == "schema default"
    assert resolved.preset_name == "mine"
    assert [file.name for file in resolved.files] == ["base.toml", "mine.toml", "medtool.toml"]


def test_the_preset_named_default_is_taken_where_there_is_one(folder):
    write("presets/tiny/default.toml", "[train]\nepochs = 8\n")
    resolved = resolve(TinyTask, None)
    assert (resolved.preset_name, resolved.settings.train.epochs) == ("default", 8)


@pytest.mark.parametrize(
    ("key", "instead"),
    [("extends", "--preset NAME"), ("description", "only the file says it")],
)
def test_what_describes_a_file_is_not_set(folder, key, instead):
    """From a fault: it was taken, and the default preset trained."""
    write("p.toml", 'description = "the file"\n')
    [fault] = faults_of(preset="p.toml", assignments=[f"{key}=mine"])
    assert fault.startswith(f'command line: {key} = "mine"')
    assert instead in fault


def test_what_a_base_says_of_itself_is_not_inherited(folder):
    write("base.toml", 'description = "the base"\n')
    write("mine.toml", 'extends = "base.toml"\n')
    settings = resolve(TinyTask, "mine.toml").settings
    assert (settings.description, settings.extends) == ("", None)


def test_arrays_are_replaced_and_tables_merged(folder):
    write("a.toml", "[[train.stages]]\nfrom_epoch = 0\nrates = {head = 1e-3, trunk = 1e-4}\n")
    write("b.toml", 'extends = "a.toml"\n[[train.stages]]\nfrom_epoch = 0\nrates.head = 2e-3\n')
    [stage] = resolve(TinyTask, "b.toml").settings.train.stages
    assert stage.rates == {"head": 2e-3}


# --- paths --------------------------------------------------------------------------------------
def test_paths_start_from_the_file_that_says_them(folder):
    write("elsewhere/base.toml", '[data]\nfolder = "scans"\nlabels = "../labels.csv"\n')
    write("p.toml", 'extends = "elsewhere/base.toml"\n')
    data = resolve(TinyTask, "p.toml").settings.data
    assert data.folder == Path("elsewhere/scans")
    assert data.labels == Path("labels.csv")
    assert resolve(TinyTask, "p.toml", assignments=["data.folder=x"]).settings.data.folder == Path(
        "x"
    )


def test_paths_of_another_working_folder(tmp_path):
    write(str(tmp_path / "medtool.toml"), '[data]\nfolder = "CTs"\n[paths]\nruns = "out"\n')
    resolved = resolve(TinyTask, None, folder=tmp_path)
    assert resolved.settings.data.folder == tmp_path / "CTs"
    assert resolved.paths.runs == tmp_path / "out"
    assert resolved.paths.cache == tmp_path / ".medtool" / "cache"
    (tmp_path / "medtool.toml").unlink()
    assert resolve(TinyTask, None, folder=tmp_path).settings.data.folder == tmp_path


def test_data_named_under_paths_is_shown_its_place(folder):
    write("medtool.toml", '[paths]\ndata = "CTs"\nlabels = "labels.csv"\n')
    data, labels = faults_of(preset=None)
    assert "folder, in [data]" in data
    assert "labels, in [data]" in labels


def test_the_home_folder_is_found(folder):
    data = resolve(TinyTask, None, assignments=["data.folder=~/scans"]).settings.data
    assert data.folder == Path.home() / "scans"


def test_absolute_paths_stay(folder):
    absolute = folder.joinpath("x").as_posix()
    write("sub/p.toml", f"[data]\nfolder = '{absolute}'\n")
    assert resolve(TinyTask, "sub/p.toml").settings.data.folder == folder / "x"


# --- fed back -----------------------------------------------------------------------------------
def test_the_written_preset_fed_back_gives_itself(folder):
    write("medtool.toml", '[data]\nfolder = "CTs"\nlabels = "a/labels.csv"\n')
    write("p.toml", "[[train.stages]]\nfrom_epoch = 0\nrates = {head = 5e-5}\n")
    resolved = resolve(TinyTask, "p.toml", assignments=["train.seed=4"])
    file = Path("runs/tiny/one/preset.toml")
    file.parent.mkdir(parents=True)
    write_preset(resolved.settings, file, origins=resolved.origins, title="one\ntwo")
    Path("medtool.toml").unlink()
    assert resolve(TinyTask, str(file)).settings == resolved.settings
    assert [path.name for path in file.parent.iterdir()] == ["preset.toml"]
    text = file.read_text()
    assert text.startswith("# one\n# two\n")
    assert "seed = 4  # command line" in text
    assert "epochs = 3  # schema default" in text


def test_from_another_folder_the_written_paths_still_point_there(folder, monkeypatch):
    settings = resolve(TinyTask, None, assignments=["data.folder=CTs"]).settings
    Path("runs").mkdir()
    Path("other").mkdir()
    write_preset(settings, Path("runs/preset.toml"))
    monkeypatch.chdir("other")
    data = resolve(TinyTask, "../runs/preset.toml").settings.data
    assert data.folder == Path("../CTs")


def test_a_document_without_files_gives_itself(folder):
    settings = resolve(TinyTask, None, assignments=["train.seed=4", "data.labels=x.csv"]).settings
    document = json.loads(json.dumps(settings.as_dict()))
    assert settings_from_document(TinyTask, document) == settings
    assert tomllib.loads(preset_text(settings)) == settings.as_dict()


def test_a_document_with_a_key_from_elsewhere_is_refused(folder):
    document = resolve(TinyTask, None).settings.as_dict()
    document["train"]["lr"] = 1.0
    document["train"]["epochs"] = 0
    with pytest.raises(PresetError) as caught:
        settings_from_document(TinyTask, document, label="c.safetensors")
    assert [fault.split("\n")[0] for fault in caught.value.faults] == [
        "c.safetensors: train.lr = 1.0",
        "c.safetensors: train.epochs = 0",
    ]


# --- faults -------------------------------------------------------------------------------------
def test_three_faults_of_one_preset_are_all_named(folder):
    write(
        "p.toml",
        '[train]\nlr = 0.1\nepochs = 0\n\n[metrics]\nthreshold_rule = "youdn"\n',
    )
    first, second, third = faults_of(preset="p.toml")
    assert first.startswith("p.toml:2: train.lr = 0.1\n")
    assert first.endswith("nearest: train.learning_rate")
    assert second.startswith("p.toml:3: train.epochs = 0\n")
    assert "greater than or equal to 1" in second
    assert third.startswith('p.toml:6: metrics.threshold_rule = "youdn"\n')
    assert third.endswith("nearest: youden")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("train.patience", "train.early_stopping_epochs"),
        ("train.plateau", "train.plateau_factor"),
        ("train.optimizer", "train.optimiser"),
        ("train.batch_size", "train.batch_cases"),
        ("train.epoch", "train.epochs"),
        ("train.wieght_decay", "train.weight_decay"),
        ("train.gradient-clip", "train.gradient_clip"),
        ("model.encoder", "model.backbone"),
        ("model.epochs", "train.epochs"),
        ("trian.epochs", "train"),
        ("data.preparation.skale", "data.preparation.scale"),
    ],
)
def test_the_nearest_key(folder, given, nearest):
    [fault] = faults_of(preset=None, assignments=[f"{given}=1"])
    assert fault.splitlines()[-1].strip() == f"nearest: {nearest}"


def test_a_typo_in_any_key_refuses(folder):
    """Every key of the filled preset, one at a time, with a letter too many."""
    filled = resolve(TinyTask, None).settings.as_dict()

    def typos(table, path=()):
        for key, value in table.items():
            yield (*path, key + "x")
            if isinstance(value, dict):
                yield from typos(value, (*path, key))

    for path in typos(filled):
        key = ".".join(path)
        assert faults_of(preset=None, assignments=[f"{key}=1"])[0].startswith(
            f"command line: {key} = 1\n"
        )


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("train.epochs=3.5", "integer"),
        ('train.epochs="3"', "integer"),
        ("train.epochs=true", "integer"),
        ("train.seed=-1", "greater than or equal to 0"),
        ("train.selection_share=1", "less than 1"),
        ("data.positive_values=1", "array"),
        ("train=3", "object"),
        ("epochs", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
    ],
)
def test_values_of_the_wrong_kind(folder, assignment, wanted):
    [fault] = faults_of(preset=None, assignments=[assignment])
    assert wanted in fault


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.precision=32", "32"),
        ("train.precision=bf16", "bf16"),
        ('train.precision="16"', "16"),
    ],
)
def test_text_needs_no_quotes(folder, assignment, value):
    assert resolve(TinyTask, None, assignments=[assignment]).settings.train.precision == value


def test_broken_toml_names_its_line(folder):
    write("p.toml", "[train]\nepochs = 3\nseed = \n")
    [fault] = faults_of(preset="p.toml")
    assert fault.startswith("p.toml:3: seed =")


def test_backslashes_of_windows_are_explained(folder):
    write("p.toml", '[data]\nfolder = "C:\\Users\\me"\n')
    [fault] = faults_of(preset="p.toml")
    assert fault.startswith("p.toml:2:")
    assert "forward slashes" in fault


def test_encodings(folder):
    Path("bom.toml").write_bytes(b"\xef\xbb\xbf[train]\nepochs = 5\n")
    assert resolve(TinyTask, "bom.toml").settings.train.epochs == 5
    Path("latin.toml").write_bytes(b"[train]\nepochs = 5\n# caf\xe9\n")
    [fault] = faults_of(preset="latin.toml")
    assert fault.startswith("latin.toml:3:")
    assert "UTF-8" in fault


def test_a_circle_is_refused(folder):
    write("a.toml", 'extends = "b.toml"\n')
    write("b.toml", 'extends = "a.toml"\n')
    [fault] = faults_of(preset="a.toml")
    assert "extends" in fault


def test_a_value_that_a_later_layer_replaces_does_no_harm(folder):
    write("a.toml", "[train]\nepochs = 0\n")
    write("b.toml", 'extends = "a.toml"\n[train]\nepochs = 1\n')
    assert resolve(TinyTask, "b.toml").settings.train.epochs == 1


def test_unknown_names(folder):
    write("presets/tiny/curriculum.toml", "")
    with pytest.raises(UnknownNameError) as caught:
        resolve(TinyTask, "curiculum")
    assert caught.value.nearest == "curriculum"
    with pytest.raises(UnknownNameError) as caught:
        resolve(TinyTask, "presets/tiny/curiculum.toml")
    assert caught.value.nearest == "curriculum.toml"


# --- medtool.toml -------------------------------------------------------------------------------
def test_faults_of_the_project_file(folder):
    write(
        "medtool.toml",
        '[paths]\nrun = "x"\n[trian]\nseed = 1\n[tasks.tinny.train]\nseed = 1\n'
        "[tasks.tiny]\ntrian = 3\n[data]\npatient_key = 3\n",
    )
    faults = [fault.splitlines() for fault in faults_of(preset=None)]
    assert [fault[0] for fault in faults] == [
        'medtool.toml:2: paths.run = "x"',
        "medtool.toml:3: trian = a table",
        "medtool.toml:5: tasks.tinny = a table",
        "medtool.toml:8: tasks.tiny.trian = 3",
        "medtool.toml:10: data.patient_key = 3",
    ]
    assert [fault[-1].strip() for fault in faults[:4]] == [
        "nearest: runs",
        "nearest: train",
        "nearest: tiny",
        "nearest: train",
    ]
