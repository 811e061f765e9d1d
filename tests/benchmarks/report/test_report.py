"""The page about a result: what it says, that it is complete in itself, and that nothing in a result is markup."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench_results import LEVEL, LOSES, PAYS, bench_result, both_frameworks, save

from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.report import plot_rounds, plot_siblings
from speckv.benchmarks.report.economics import calibration, cost_fit, economics
from speckv.benchmarks.report.headline import headline
from speckv.benchmarks.report.page import page, plots, write
from speckv.benchmarks.report.plot_rounds import wilson
from speckv.benchmarks.report.reading import Place, Result, read
from speckv.benchmarks.report.recommend import choice
from speckv.benchmarks.report.sections import siblings_section, tables_section, verdict_section
from speckv.benchmarks.report.style import Absent, Plot, drawable
from speckv.benchmarks.report.verdict import Finding, paragraph, verdicts
from speckv.controller.errors import SpecKVError

HERE = ("transformers", "bf16", 1)
HOSTILE = "<script>alert(1)</script>&\"'$x^$漢\x07"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Elements(HTMLParser):
    """Names and attributes of a page's elements; fails where one is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return read(save(both_frameworks(), tmp_path_factory.mktemp("both") / "r.json"))


@pytest.fixture(scope="module")
def folder(both: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report."""
    made = tmp_path_factory.mktemp("report")
    written = write(both, made)
    assert written[0] == made / "index.html" and set(written) == set(made.iterdir())
    return made


def reading(tmp_path: Path, *given: Any, **more: Any) -> Result:
    return read(save(bench_result(*given, **more), tmp_path / "r.json"))


def test_the_page_holds_all_and_loads_nothing(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    elements = Elements(text).found
    assert not re.search(r"(https?:)?//[a-z]", text.replace("</", ""))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements}
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        target = attributes.get("href") or ""
        if target.startswith("#"):
            assert target[1:] in ids
        elif target:
            assert (folder / target).stat().st_size > 1000
        for used in re.findall(r"url\(#([^)]*)\)", " ".join(value or "" for value in attributes.values())):
            assert used in ids
    drawings = [attributes for tag, attributes in elements if tag == "svg"]
    assert len(drawings) == len(list(folder.glob("*.svg"))) == len(list(folder.glob("*.png"))) > 12
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] in ids for attributes in drawings)


def test_the_page_says_what_was_measured(both: Result, folder: Path) -> None:
    text = re.sub(r"<[^>]*>", "", (folder / "index.html").read_text(encoding="utf-8"))
    assert "Of 4 settings measured, speculation with speckv pays in 2 and it does not pay in 2." in text
    for said in ("0123456789ab+", "Some CPU", "TARGET/a,DRAFT/b", "torch 2.13.0+cpu", "sglang is not installed here"):
        assert said in text
    row = both.at(Place(*HERE))["speckv"]
    assert f"{row.vs_plain:.2f} ({row.ci['vs_plain'][0]:.2f}–{row.ci['vs_plain'][1]:.2f})" in text
    assert "11 of 12" not in text and "12 of 12" in text  # agreement of plain outputs


def test_names_in_a_result_are_never_markup(tmp_path: Path) -> None:
    rates = {HERE: {"plain": 1.0, f"fixed-4{HOSTILE}": 1.1, "speckv": 1.2}}
    result = reading(tmp_path, rates, prompts=4, tokens=12, name=HOSTILE)
    groups = plots(result)
    text = page(result, groups)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not {"script", "img"} & {tag for tag, _ in Elements(text).found}
    names = {drawn.name for group in groups.values() for drawn in group if isinstance(drawn, Plot)}
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert drawable("漢\x07γτρ") == "??γτρ"


def test_a_plot_comes_out_the_same_each_time(both: Result) -> None:
    one, two = plot_rounds.one_request(both)[0], plot_rounds.one_request(both)[0]
    assert isinstance(one, Plot) and one == two
    other = plot_rounds.reliability(both)[0]
    assert isinstance(other, Plot)
    ids = [set(re.findall(r'id="([^"]*)"', plot.inlined())) for plot in (one, other)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


@pytest.mark.parametrize(
    ("rates", "noise", "finding", "said"),
    [
        (PAYS, 0.03, Finding.ABOVE, "speculation pays. speckv wrote"),
        (LOSES, 0.03, Finding.BELOW, "speculation does not pay. speckv wrote"),
        (LEVEL, 0.3, Finding.UNCLEAR, "it is not shown whether speculation pays"),
    ],
)
def test_the_verdict_is_that_of_the_interval(
    tmp_path: Path, rates: dict[str, float], noise: float, finding: Finding, said: str
) -> None:
    result = reading(tmp_path, {HERE: rates}, noise=noise)
    assert [one.finding for one in verdicts(result)] == [finding]
    text = paragraph(result)
    assert said in text and ("which includes 1" in text) is (finding is Finding.UNCLEAR)
    assert ("Why: a draft token takes 0.20 of a plain step" in text) is (finding is not Finding.ABOVE)


@pytest.mark.parametrize(
    ("rates", "more", "found", "said"),
    [
        (PAYS, {}, Finding.ABOVE, "Speculation pays here: speckv writes 1.5"),
        (PAYS | {"fixed-4": 1.8}, {}, Finding.ABOVE, "Speculation pays here: a fixed γ of 4 writes 1.8"),
        (LOSES, {}, Finding.BELOW, "Speculation does not pay here: speckv writes 0.9"),
        (LEVEL, {"noise": 0.3}, Finding.UNCLEAR, "It is not shown that speculation pays here: speckv writes"),
        (PAYS, {"prompts": 3}, Finding.ABOVE, "On only 3 prompts, speculation pays here: speckv writes"),
        (PAYS, {"prompts": 1}, Finding.UNCLEAR, "On only 1 prompt, it is not shown that speculation pays here"),
        ({"plain": 1.0}, {}, None, "Whether speculation pays here is not known: speckv was not measured."),
    ],
)
def test_one_sentence_in_large_type_says_whether_it_pays(
    tmp_path: Path, rates: dict[str, float], more: dict[str, Any], found: Finding | None, said: str
) -> None:
    result = reading(tmp_path, {HERE: rates}, **more)
    text, finding = headline(result)
    assert text.startswith(said) and finding is found and text.count(". ") == 0
    if found is not None:
        assert ("no interval" if more.get("prompts") == 1 else "95 % interval") in text
        assert ("which includes 1" in text) is (found is Finding.UNCLEAR and more.get("prompts") != 1)
    shown = re.sub(r"<[^>]*>", "", verdict_section(result))
    assert shown.startswith(text)


def test_of_several_settings_it_says_in_how_many_and_where_most(tmp_path: Path, both: Result) -> None:
    place = "in transformers, bf16, one request at a time"
    text, found = headline(both)
    assert text.startswith(f"Speculation pays in 2 of 4 settings measured, most {place}: there speckv writes 1.5")
    assert found is Finding.ABOVE
    nf4 = ("transformers", "nf4", 1)
    assert headline(reading(tmp_path, {HERE: PAYS, nf4: PAYS}))[0].startswith("Speculation pays in both settings")
    text, found = headline(reading(tmp_path, {HERE: LOSES, nf4: LOSES}))
    assert text.startswith("Speculation pays in none of the 2 settings measured: at best, in ")
    assert found is Finding.BELOW
    text, found = headline(reading(tmp_path, {HERE: LOSES, nf4: LEVEL}, noise=0.3))
    assert text.startswith("Speculation is not shown to pay in any of the 2") and found is Finding.UNCLEAR


SERVED = ("servers", "as served", 1)
BUSY = ("servers", "as served", 8)


@pytest.mark.parametrize(
    ("given", "noise", "found", "said"),
    [
        (
            {SERVED: {"plain": 1.0, "speckv": 1.5}},
            0.03,
            Finding.ABOVE,
            "speckv is faster than plain with one request at a",
        ),
        ({SERVED: {"a": 1.0, "b": 0.8}}, 0.03, None, "b is slower than a with one request at a time: 0.8"),
        ({SERVED: {"a": 1.0, "b": 1.01}}, 0.3, None, "b is not clearly different from a with one request at a time: "),
        ({SERVED: {"a": 1.0}}, 0.03, None, "a was measured alone, so there is nothing to compare it with."),
        (
            {SERVED: {"a": 1.0, "b": 1.3, "c": 1.6}, BUSY: {"a": 1.0, "b": 1.1, "c": 0.9}},
            0.03,
            None,
            "c is faster than a at 1 of 2 loads, at best with one request at a time: 1.5",
        ),
        (
            {SERVED: {"plain": 1.0, "speckv": 0.8}, BUSY: {"plain": 1.0, "speckv": 0.9}},
            0.03,
            Finding.BELOW,
            "speckv is slower than plain at 2 of 2 loads, at best with 8 requests at a time: 0.8",
        ),
    ],
)
def test_of_servers_it_says_which_is_faster_and_only_of_these_names_that_speculation_pays(
    tmp_path: Path, given: Any, noise: float, found: Finding | None, said: str
) -> None:
    result = reading(tmp_path, given, noise=noise, servers=tuple(next(iter(given.values()))))
    text, finding = headline(result)
    assert text.startswith(said) and finding is found
    assert len(result.servers) == 1 or "95 % interval" in text


def test_siblings_are_drawn_as_a_tree_and_compared_with_none(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: {**PAYS, "speckv-chain": 1.4}})
    here = result.at(Place(*HERE))
    (plot,) = plot_siblings.by_depth(result)
    assert (
        isinstance(plot, Plot)
        and plot.alt.startswith("Tree and bars of siblings")
        and "wrote the sibling" in plot.caption
    )
    text = re.sub(r"<[^>]*>", " ", siblings_section(result))
    assert f"{here['speckv'].sibling_hits} (" in text and f"{here['speckv-chain'].tokens_per_s:.1f}" in text
    assert not siblings_section(reading(tmp_path, {HERE: {"plain": 1.0}}))


def test_siblings_and_batches_are_told(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: PAYS, ("transformers", "bf16", 4): PAYS})
    alone, batch = result.places
    row = result.at(alone)["speckv"]
    assert row.siblings and 0 < row.sibling_hits < row.siblings
    assert result.at(batch)["speckv"].ttft_ms is None
    plot = plot_siblings.by_depth(result)[0]
    assert isinstance(plot, Plot) and f"{row.siblings} verified" in plot.alt
    text = page(result, plots(result))
    assert "transformers, bf16, a batch of 4" in text
    assert f"{row.siblings} ({100 * row.sibling_hits / row.siblings:.0f} %)" in re.sub(r"<[^>]*>", "", text)
    fit = cost_fit(result, "bf16")
    assert fit is not None and fit.error < 0.1  # a verify's rows are its siblings' too


def test_rounds_of_a_result_from_before_there_were_siblings(tmp_path: Path) -> None:
    content = bench_result({HERE: PAYS})
    for entry in content["entries"]:
        entry["steps"] = [step[:4] for step in entry["steps"]]
        del entry["siblings"], entry["sibling_hits"]
    result = read(save(content, tmp_path / "r.json"))
    assert isinstance(plot_siblings.by_depth(result)[0], Absent)
    assert all(step.siblings == 0 and step.drafted == step.gamma for one in result.entries for step in one.steps)


def test_few_prompts_and_no_speckv_are_said(tmp_path: Path) -> None:
    assert "With 3 prompts the intervals are themselves uncertain" in paragraph(
        reading(tmp_path, {HERE: PAYS}, prompts=3)
    )
    result = reading(tmp_path, {HERE: {"plain": 1.0}})
    assert "was not measured" in paragraph(result)
    groups = plots(result)
    left_out = [one for group in groups.values() for one in group if isinstance(one, Absent)]
    assert len(left_out) == 7 and all(one.why.endswith(".") for one in left_out)
    assert page(result, groups).count("Left out: ") == 7


def test_a_single_prompt_shows_nothing(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: PAYS}, prompts=1)
    assert [one.finding for one in verdicts(result)] == [Finding.UNCLEAR]
    assert "on a single prompt, so without an interval" in paragraph(result)
    assert "(1 prompt)" in tables_section(result) and "includes 1" not in paragraph(result)
    gamma, text = choice(result, Place(*HERE))
    assert gamma == 0 and "one prompt has no interval" in text and "--count 8" in text


def test_economics_are_those_of_the_costs(both: Result) -> None:
    found = economics(both, Place(*HERE))
    assert found is not None and found.draft_share == pytest.approx(0.2)
    assert found.perfect == (8, pytest.approx(9 * 100 / (8 * 20 + 130)))
    assert 0.6 < found.acceptance < 0.9
    assert economics(both, Place("sglang", "bf16", 1)) is None
    fit = cost_fit(both, "bf16")
    assert fit is not None and fit.error < 0.05
    assert {gamma: said for gamma, said, _, _ in fit.points}[2] == pytest.approx(2 * 20 + 105)


def test_calibration_finds_hopeful_predictions(tmp_path: Path) -> None:
    for hopeful, low, high in ((0.0, 0.0, 0.07), (0.3, 0.25, 0.35)):
        result = reading(tmp_path, {HERE: PAYS}, prompts=40, hopeful=hopeful)
        found = calibration(result.entries_at(Place(*HERE), "speckv"))
        assert found is not None and low <= found.error <= high
        assert sum(count for _, _, count in found.bins) == found.count
    assert wilson(0.5, 100) == (pytest.approx(0.404, abs=1e-3), pytest.approx(0.596, abs=1e-3))
    assert wilson(0.0, 5)[0] == 0.0 and wilson(1.0, 5)[1] == 1.0


def damaged(change: Callable[[dict[str, Any]], Any]) -> Any:
    result = bench_result({HERE: PAYS}, prompts=2, tokens=8)
    change(result)
    return result


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tokens_per_s": lambda r: r["rows"][0].pop("tokens_per_s"),
    "$.rows": lambda r: r.update(rows="many"),
    "$.rows[1].ci": lambda r: r["rows"][1].update(ci={"vs_plain": [1]}),
    "steps": lambda r: r["entries"][1].update(steps=[[1, 2]]),
    "predicted": lambda r: r["entries"][4].update(predicted=[[1.5, True]]),
    "$.costs": lambda r: r["costs"].update(bf16={"draft_ms": 0, "verify_ms": {"1": 1}}),
    "int": lambda r: r["costs"].update(bf16={"draft_ms": 1, "verify_ms": {"one": 1}}),
    "verify_ms": lambda r: r["costs"].update(bf16={"draft_ms": 1, "verify_ms": {}}),
    "settings": lambda r: r.pop("settings"),
    "$.skipped": lambda r: r.update(skipped=[["sglang"]]),
    "$.bound": lambda r: r.update(bound=[{"regime": 3}]),
    "NaN": lambda r: r["rows"][0].update(vs_plain=float("nan")),
    "no row of plain": lambda r: r.update(rows=[row for row in r["rows"] if row["policy"] != "plain"]),
    "no interval vs_plain": lambda r: [row.update(ci={}) for row in r["rows"]],
    "nothing was measured": lambda r: r.update(rows=[]),
    "measure again": lambda r: r.update(version=99),
}


@pytest.mark.parametrize("named", DAMAGES)
def test_what_is_damaged_is_one_line(named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path = save(damaged(DAMAGES[named]), tmp_path / "r.json")
    for command in (["report", str(path), "-o", str(tmp_path / "out")], ["recommend", str(path)]):
        monkeypatch.setattr(sys, "argv", ["speckv", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 2 and not said.out
        assert said.err.startswith(f"speckv: {path}: ") and said.err.count("\n") == 1 and named in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"kind": 1e999}', "\x00"])
def test_what_is_no_result_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(SpecKVError, match=r"r\.json: (cannot be read|not a result)"):
        read(tmp_path / "r.json")
    with pytest.raises(SpecKVError, match="no such file"):
        read(tmp_path / "absent.json")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: {"plain": 1.0}}, prompts=2, tokens=8)
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecKVError, match="cannot be written"):
        write(result, tmp_path / "file" / "x")
