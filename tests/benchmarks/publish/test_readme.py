"""README and docs/results.md hold the stored results, what a page links to is there, and the map is of this code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pages import BLOCK, LAYERS, PAGES, README, ROOT

from speckv.benchmarks.publish import readme

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", readme.PAGES)
def test_tables_equal_the_stored_results(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == readme.rendered(page, text, RESULTS), "run: make readme"


def test_readme_is_short_and_its_table_has_seven_rows() -> None:
    text = README.read_bytes()
    assert len(text) < 8192
    _, table, _ = re.split(r"<!-- claim:(?:begin|end) -->\n", text.decode())
    assert len(table.splitlines()) == 2 + 7


def test_every_stored_result_is_on_the_page_of_results() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    for path in RESULTS.glob("*.json"):
        assert f"`{path.name}`" in text
        tabled = path.name.startswith(("demo-", "end-to-end-", "fresh-", "widths", "replay", "gpu"))
        if tabled:  # its command heads a table, and is in the last list
            assert text.count(f"`{json.loads(path.read_text(encoding='utf-8'))['command']}`") == 2, path.name


def test_settings_at_rest_are_not_in_the_range_of_those_that_draft(tmp_path: Path) -> None:
    def claimed(*measured: tuple[float, float, float]) -> list[str]:
        """README's cells of a run with these mean γ, ratios to plain and ratios to the best fixed γ."""
        names = ("mean_gamma", "vs_plain", "vs_best_fixed")
        rows = [{**row, **dict(zip(names, values, strict=True))} for values in measured]
        (tmp_path / name).write_text(json.dumps({**result, "rows": rows}), encoding="utf-8")
        (line,) = (line for line in readme.claim_section(tmp_path).splitlines() if "EAGLE-3" in line)
        return line.strip("| ").split(" | ")[-3:]

    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).symlink_to(path)
    name = "end-to-end-sglang-eagle3.json"
    result = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    row = next(row for row in result["rows"] if row["policy"] == "speckv" and row["task"] == "all")
    (tmp_path / name).unlink()
    (tmp_path / "end-to-end-sglang-eagle3-float32.json").unlink()
    (tmp_path / "end-to-end-sglang-eagle3-float32.json").write_text(json.dumps({**result, "rows": []}))
    assert claimed((2.0, 1.234, 1.1), (0.1, 0.9, 0.9), (0.04, 1.5, 1.5)) == ["0.90–1.23", "0.90–1.10", "1 of 3: 1.50"]
    assert claimed((0.0, 1.5, 1.5)) == ["–", "–", "1 of 1: 1.50"]
    assert claimed((2.0, 1.234, 1.1)) == ["1.23", "1.10", "0 of 1"]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_the_anchor_of_a_heading_is_as_github_makes_it() -> None:
    assert slug("`speckv.json`, the file of SGLang's `--speculative-adaptive-config`") == (
        "speckvjson-the-file-of-sglangs---speculative-adaptive-config"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_readme_leads_to_every_page() -> None:
    links = set(re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8")))
    assert links >= {str(page.relative_to(ROOT)) for page in PAGES if page != README}


def test_the_map_has_every_package_and_no_other_file() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for layer in LAYERS:
        for module in (ROOT / layer).rglob("__init__.py"):
            assert f"`{module.parent.relative_to(ROOT)}/`" in text
    for named in re.findall(r"`([\w.]+/[\w./*]*)`", text):
        assert list(ROOT.glob(named)), named
    transformers, sglang = (drawn for language, drawn in BLOCK.findall(text) if language == "text")
    here = {path.name for path in (*ROOT.glob("integrations/*.py"), *ROOT.glob("controller/*.py"))}
    for drawn, folder in ((transformers, "transformers"), (sglang, "sglang")):
        files = here | {path.name for path in (ROOT / "integrations" / folder).glob("*.py")}
        for name in re.findall(r"(?<![\w/])(\w+\.py)\b", drawn):
            assert name in files, f"{folder}: {name}"


def test_ci_runs_its_script_and_hooks_run_what_make_check_runs() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    run = {hook["entry"].removesuffix(" --force-exclude").removeprefix(".venv/bin/") for hook in repository["hooks"]}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    checks = re.findall(r"^(?:lint|types): .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    lines = [line.strip().removeprefix("$(VENV)/").removesuffix(" .") for of in checks for line in of.splitlines()]
    assert run == set(lines)
