from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command
from understudy.recipe import check, read_text
from understudy.recipe.papers import MARKS, PAPERS, paper_of


@pytest.fixture
def paper(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return Command(capsys, "paper")


@pytest.fixture
def arrays(tmp_path: Path) -> str:
    """Images of 8 x 8, which the smallest networks of the tables can take."""
    stream = np.random.default_rng(0)
    labels = {"train": np.arange(40) % 4, "test": np.arange(8) % 4}
    images = {
        part: stream.integers(0, 256, (len(of), 8, 8, 3), dtype=np.uint8) for part, of in labels.items()
    }
    np.savez(
        tmp_path / "mine.npz",
        x_train=images["train"],
        y_train=labels["train"],
        x_test=images["test"],
        y_test=labels["test"],
    )
    return "mine.npz"


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_has_every_table_with_its_figures(paper: Command) -> None:
    assert paper("list") == 0
    for name in PAPERS:
        assert any(line.startswith(f"{name} ") for line in paper.out.splitlines())
    said = words(paper.out)
    assert "scratch: 41.09 % (NOKD; quoted) direct: 44.57 % (BLKD; quoted)" in said
    assert "peers: 74.14 ± 0.16 % (PCL; quoted)" in said
    assert "5.39 points over direct distillation (abstract)" in said
    assert "No published figures are known." in said
    for mark, means in MARKS.items():
        assert f"- {mark}: {means}" in said
    assert all(len(line) <= 100 for line in paper.out.splitlines())


def test_show_prints_a_recipe_and_trains_nothing(paper: Command, tmp_path: Path) -> None:
    assert paper("takd-1", "--show") == 0
    recipe = check(read_text(paper.out))
    assert recipe.data.hub == "uoft-cs/cifar100"
    assert recipe.training.epochs == 160
    assert list(tmp_path.iterdir()) == []
    comments = [line for line in paper.out.splitlines() if line.startswith("# ")]
    assert comments[:2] == [f"# {paper_of('takd-1').title}", "# published: scratch: 41.09 % (NOKD; quoted)"]
    assert "# our choice: no augmentation, as the official code does by default." in comments


def test_show_has_what_was_changed(paper: Command, arrays: str) -> None:
    assert (
        paper(
            *("takd-1", "--show", "--data", arrays, "--scale", "0.1", "--seeds", "3"),
            *("--set", "teaching.temperature=2.0"),
        )
        == 0
    )
    assert (
        f"# data: {arrays}, taken as not the paper's cifar100: the figures cannot be compared." in paper.out
    )
    assert "# changed: teaching.temperature=2.0." in paper.out
    recipe = check(read_text(paper.out))
    assert (recipe.data.path, recipe.data.mean) == ("mine.npz", None)
    assert (recipe.training.epochs, recipe.seeds) == (16, [0, 1, 2])
    assert recipe.teaching.temperature == 2.0
    assert paper("takd-1", "--show", "--data", "digits") == 0
    assert check(read_text(paper.out)).data.name == "digits"


def test_bad_input_is_one_line(paper: Command) -> None:
    assert "there is no paper 'takd-2'." in paper.refused("takd-2")
    assert "Did you mean 'dgkd-wrn'?" in paper.refused("dgkd-wnr")
    assert "above 0 and at most 1; got 0." in paper.refused("takd-1", "--scale", "0")
    assert "above 0 and at most 1; got 2." in paper.refused("takd-1", "--show", "--scale", "2")
    refused = paper.refused("takd-1", "--data", "nowhere.npz")
    assert refused == (
        "understudy: --data: there is no file or folder nowhere.npz. An .npz file, a folder of class folders, or digits."
    )


SMALL = (
    *("--set", "models.teacher.name=plain_cnn-4", "--set", "models.assistants.0.name=plain_cnn-3"),
    *("--set", "models.student.width=0.25", "--set", "training.device=cpu"),
)


def test_a_run_has_the_published_figures_beside_its_own(paper: Command, arrays: str, tmp_path: Path) -> None:
    assert paper("takd-1", "--data", arrays, "--scale", "0.01", "--out", "runs/mine", *SMALL) == 0, paper.err
    said = words(paper.out)
    assert paper.out.splitlines()[0] == paper_of("takd-1").title
    labels = (
        "data: mine.npz, taken as not the paper's cifar100: the figures cannot be compared.",
        "epochs: 0.01 of the published ones.",
        "changed: models.teacher.name=plain_cnn-4.",
        "our choice: no augmentation, as the official code does by default.",
    )
    before, _, after = said.partition("Published, and here")
    for label in labels:
        assert f"- {label}" in before
        assert (f"- {label}" in after) is not label.startswith("our choice")
    assert "quoted: quoted by somebody who read the paper" in said
    assert "author:" not in said  # none of these figures is theirs
    assert all(len(line) <= 100 for line in paper.out.split("Published, and here")[0].splitlines()[:12])

    page = (tmp_path / "runs/mine/paper.md").read_text("utf-8")
    lines = page.splitlines()
    assert lines[0] == f"# {paper_of('takd-1').title}"
    assert all(f"- {label}" in lines for label in labels)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0] == ["arm", "published, %", "called", "how sure", "here, %", "n"]
    assert [row[:4] for row in rows[1:]] == [
        ["scratch", "41.09", "NOKD", "quoted"],
        ["direct", "44.57", "BLKD", "quoted"],
        ["chain", "44.92", "TAKD", "quoted"],
    ]
    for row in rows[1:]:
        assert row[5] == "1"
        assert float(row[4]) / 12.5 == int(float(row[4]) / 12.5)  # of eight test images
        assert row[4] in paper.out
    report = (tmp_path / "runs/mine/report.html").read_text("utf-8")
    assert '<h2 id="published">Published, and here</h2>' in report
    for label in labels:
        assert f"<li>{label}</li>".replace("'", "&#39;") in report
    assert '<td class="number">44.92</td><td>TAKD</td><td>quoted</td>' in report


def test_an_unfinished_run_has_its_labels_and_another_one_in_the_folder_has_not(
    paper: Command, arrays: str, tmp_path: Path
) -> None:
    asked = ("takd-1", "--data", arrays, "--scale", "0.01", "--out", "runs/mine", *SMALL)
    assert paper(*asked, "--hours", "0.00000001") == 130
    report = tmp_path / "runs/mine/report.html"
    assert "<li>epochs: 0.01 of the published ones.</li>" in report.read_text("utf-8")
    before = (tmp_path / "runs/mine/paper.json").read_bytes()
    assert "holds another run" in paper.refused(*asked, "--quiet", "--set", "training.lr=0.2")
    assert (tmp_path / "runs/mine/paper.json").read_bytes() == before


def test_its_own_data_and_length_need_no_label(paper: Command) -> None:
    from understudy.cli.paper import _published

    chosen = paper_of("dgkd-1")
    assert _published(chosen).labels == tuple(f"our choice: {choice}." for choice in chosen.ours)
    assert _published(chosen, scale=0.5).labels[0] == "epochs: 0.5 of the published ones."


def test_without_published_figures_the_page_says_so(paper: Command, arrays: str, tmp_path: Path) -> None:
    assert (
        paper(
            *("isl-cifar100", "--data", arrays, "--scale", "0.005", "--seeds", "1", "--quiet"),
            *("--set", "models.teacher.name=plain_cnn-3", "--set", "models.student.name=plain_cnn-2"),
            *("--set", "controls=[direct]", "--set", "training.device=cpu"),
        )
        == 0
    ), paper.err
    assert "No published figures are known." in paper.out.splitlines()
    assert paper_of("isl-cifar100").title not in paper.out  # --quiet
    page = (tmp_path / "runs/isl-cifar100/paper.md").read_text("utf-8")
    assert page.endswith("\n\nNo published figures are known.\n")
    assert "- changed: seeds=[0]." in page.splitlines()
