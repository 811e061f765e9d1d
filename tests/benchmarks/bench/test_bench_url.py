"""`speckv bench --url`: servers elsewhere, timed by their streams; here a small one that streams at a known pace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai_fake import FIRST_S, NEXT_S, Fake, starting

from speckv.benchmarks.bench import at_url, chat_api
from speckv.benchmarks.bench.at_url import named
from speckv.benchmarks.bench.chat_api import arrivals
from speckv.benchmarks.bench.plan import Plan
from speckv.benchmarks.bench.run import FRAMEWORKS
from speckv.benchmarks.bench.run import run as run_bench
from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.prompts import Prompt
from speckv.benchmarks.report.page import page, plots
from speckv.benchmarks.report.reading import read
from speckv.benchmarks.report.recommend import recommendations
from speckv.controller.errors import SpecKVError

TOKENS = 4
PROMPTS = tuple(Prompt(f"{task}-{number}", task, f"{task} {number}") for number in (1, 2) for task in ("code", "chat"))


Start = Callable[..., Fake]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts fake servers that share a log of who was asked."""
    with starting() as start:
        yield start


def measured(out: Path, *fakes: Fake, **changed: Any) -> dict[str, Any]:
    settings = {"tokens": TOKENS, "concurrencies": (1, 4)} | changed
    plan = at_url.served([f"{fake.name}={fake.url}" for fake in fakes], PROMPTS, **settings)
    return run_bench(plan, out, "a test", lambda *_: None)


def test_rows_are_of_what_the_streams_took(start: Start, tmp_path: Path) -> None:
    plain, fast = start(name="plain"), start(name="speckv", per_chunk=4, odd=PROMPTS[1].text)
    result = measured(tmp_path / "r.json", plain, fast, tokens=8)
    of = {(row["policy"], row["concurrency"]): row for row in result["rows"] if row["task"] == "all"}
    assert list(of) == [("plain", 1), ("speckv", 1), ("plain", 4), ("speckv", 4)]
    for (name, size), row in of.items():
        waits = 1 if name == "speckv" else 7  # that are not within a chunk
        ideal = 8 * size / (FIRST_S + waits * NEXT_S)
        assert 0.1 * ideal < row["tokens_per_s"] < ideal
        assert 1e3 * FIRST_S - 1 <= row["ttft_ms"] < 1e3 * FIRST_S + 200
        assert 0.9e3 * NEXT_S * waits / 7 <= row["itl_mean_ms"] < 1e3 * NEXT_S + 50
    assert of["speckv", 1]["vs_plain"] > 1.1 and of["plain", 1]["vs_plain"] == 1
    assert of["speckv", 1]["ci"]["vs_plain"][0] <= of["speckv", 1]["vs_plain"] <= of["speckv", 1]["ci"]["vs_plain"][1]
    assert [of["speckv", size]["identical"] for size in (1, 4)] == [3, 3] and of["plain", 4]["identical"] == 4
    assert all(entry["tokens"] == len(entry["arrivals_ms"]) == 8 for entry in result["entries"])
    assert result["settings"]["servers"] == {"plain": plain.url, "speckv": fast.url}
    assert result["settings"]["pair"] == "some/model"
    body = plain.bodies[len(PROMPTS)]  # the first that came alone
    assert body["messages"] == [{"role": "user", "content": PROMPTS[0].text}] and body["model"] == "some/model"
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.0, 8, True)


def test_every_other_repetition_is_mirrored_and_all_are_warmed_up(start: Start, tmp_path: Path) -> None:
    fakes = [start(name=name) for name in ("a", "b", "c")]
    measured(tmp_path / "r.json", *fakes, repeats=2, concurrencies=(4,), tokens=1)
    asked = fakes[0].log[:: len(PROMPTS)]
    assert asked == [*"abc", *"abc", *"cba"]


def test_servers_take_turns_at_every_prompt_or_at_some_times_those_at_once(start: Start, tmp_path: Path) -> None:
    """So that whatever else goes on meanwhile falls on all of them."""
    one, two = start(name="a", models=("/models/of/mine",)), start(name="b", models=("/models/of/mine",))
    result = measured(tmp_path / "r.json", one, two, concurrencies=(1,), tokens=1)
    assert "".join(one.log) == 4 * "a" + 4 * "b" + "abbaabba" and result["settings"]["pair"] == "mine"
    several = tuple(Prompt(str(number), "chat", str(number)) for number in range(39))
    for size, lengths in ((1, [1] * 39), (4, [9, 10, 10, 10]), (8, [19, 20]), (10, [39]), (39, [39])):
        assert [len(part) for part in at_url._parts(several, size)] == lengths
        assert [one for part in at_url._parts(several, size) for one in part] == list(several)


def test_what_was_measured_before_a_failure_is_kept(start: Start, tmp_path: Path) -> None:
    one, two = start(name="a"), start(name="b", breaks_after=2 * len(PROMPTS))
    out = tmp_path / "r.json"
    with pytest.raises(SpecKVError, match=rf"{two.url}: broke off.*run the same command again"):
        measured(out, one, two)
    assert not out.exists()
    assert one.log.count("a") == 3 * len(PROMPTS)  # to warm up, and at both concurrencies
    two.breaks_after = 10**9
    one.log.clear()
    result = measured(out, one, two)
    assert one.log == ["b"] * 2 * len(PROMPTS)
    assert len(result["entries"]) == 2 * 2 * len(PROMPTS)
    measured(out, two, one)  # the same, the other way round
    assert one.log == ["b"] * 2 * len(PROMPTS) and read(out).against == "b"
    measured(out, one, two, tokens=TOKENS - 1)
    assert len(one.log) == 8 * len(PROMPTS)


def test_a_report_speaks_of_servers_and_recommend_wants_names(start: Start, tmp_path: Path) -> None:
    one, two = start(name="a"), start(name="b", usage=False, per_chunk=2, odd=PROMPTS[0].text)
    measured(tmp_path / "r.json", one, two)
    result = read(tmp_path / "r.json")
    text = re.sub(r"<[^>]*>", "", page(result, plots(result)))
    assert "servers, as served, 4 requests at a time: b wrote " in text
    assert "2 of 8 answers of b differ from those of a; in bf16 they need not be equal" in text
    assert "b does not tell its tokens, so its chunks were counted" in text
    assert "Against a, by task" in text and "vs a" in text
    assert not re.search("plain|siblings|drafted|frameworks", text)
    with pytest.raises(SpecKVError, match="only servers named a and b; measure them with --url plain=URL"):
        recommendations(result)


def test_what_is_recommended_of_servers_named_so(start: Start, tmp_path: Path) -> None:
    measured(tmp_path / "r.json", start(name="plain"), start(name="speckv", per_chunk=4), concurrencies=(1,), tokens=16)
    (text, *_) = recommendations(read(tmp_path / "r.json"))
    assert "Use speckv: " in text and "attach" not in text and "drafted" not in text


def test_servers_are_nothing_without_addresses() -> None:
    with pytest.raises(SpecKVError, match="give each with --url"):
        Plan(PROMPTS, frameworks=("servers",)).check(FRAMEWORKS)


def test_a_server_that_says_nothing_is_left(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_api, "SILENT_S", 0.03)
    with pytest.raises(SpecKVError, match="no answer in time at /v1/chat/completions"):
        measured(tmp_path / "r.json", start(name="a", raw=b"data: {}"))


def test_nothing_but_the_package_itself_is_needed(start: Start, tmp_path: Path) -> None:
    absent = "torch transformers onnx onnxruntime sklearn pyarrow matplotlib"
    code = f"import sys; sys.modules |= dict.fromkeys('{absent}'.split())"
    code += "; from speckv.benchmarks.cli.main import main; main()"
    command = [sys.executable, "-c", code, "bench", str(tmp_path / "r.json"), "--url", start().url, "--quick"]
    ended = subprocess.run([*command, "--tokens", "1"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert len(read(tmp_path / "r.json").entries) == 2 * 4


def test_names_are_given_or_the_host() -> None:
    given = ["x=http://a:1/v1/", "https://b/route?", "http://c:3"]
    assert named(given) == {"x": "http://a:1", "b": "https://b/route", "c:3": "http://c:3"}


def test_tokens_of_a_chunk_come_at_once() -> None:
    assert arrivals([(10, 4), (20, 8)], 3) == [10, 20, 20]
    assert arrivals([(10, 4), (20, 4), (30, 0)], 3) == [10, 20, 30]
    assert arrivals([(10, 4), (20, 4)], 1) == [10]
    assert arrivals([], 0) == []


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """Calls `speckv bench r.json` with arguments added, in an empty folder without a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*arguments: str) -> Ended:
        given = ["speckv", "bench", "r.json", "--count", "2", "--tokens", "2", "--concurrency", "2", *arguments]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


def test_the_command_tells_and_keeps_no_key(run: Callable[..., Ended], start: Start) -> None:
    fake, other = start(key="secret-1", refuses_options=True), start(key="secret-1")
    ended = run("--url", fake.url, "--url", f"b={other.url}/v1", "--api-key", "secret-1")
    assert ended.code == 0, ended.err
    first = fake.url.removeprefix("http://")
    assert f"0 of 2 answers of b differ from those of {first}." in ended.out
    assert f"{first} does not tell its tokens" in ended.out and f"vs {first}" in ended.out
    assert "warm-up" in ended.err and "servers: done" in ended.err
    assert not [path for path in Path.cwd().iterdir() if "secret" in path.read_text(encoding="utf-8")]
    assert "stream_options" not in fake.bodies[-1] and other.bodies[-1]["stream_options"] == {"include_usage": True}


def test_of_a_short_file_all_prompts_are_asked(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than the usual count, where none is said."""
    fake = start()
    (tmp_path / "mine.jsonl").write_text(
        "".join(f'{{"id": "{n}", "task": "t", "prompt": "Say {n}."}}\n' for n in "abc")
    )
    monkeypatch.chdir(tmp_path)
    given = ["--url", f"mine={fake.url}", "--prompts", "mine.jsonl", "--tokens", "2", "--concurrency", "1"]
    monkeypatch.setattr(sys, "argv", ["speckv", "bench", "r.json", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["settings"]["prompts"] == 3


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"key": "x"}, ["401 (", "no such key", "give a key with --api-key or in OPENAI_API_KEY"]),
        ({"status": 404}, ["/v1/models answers 404", "give the address that is followed by /v1/models"]),
        ({"status": 503}, ["answers 503", "not now", "run the same command again"]),
        ({"status": 307}, ["leads elsewhere, to http://elsewhere:1; give that address"]),
        ({"models": ()}, ["lists no model at /v1/models; start it with one"]),
        ({"models": ("m", "n")}, ["serves 2 models (m, n); choose one with --model"]),
        ({"stream": False}, ["does not stream its answers"]),
        ({"raw": b"data: {nonsense\n\n"}, ["what it says at /v1/chat/completions is not the OpenAI API's"]),
        ({"raw": b'data: {"choices": [{"delta": 3}]}\n\n'}, ["is not the OpenAI API's"]),
        ({"raw": b'data: {"error": {"message": "no memory"}}\n\n'}, ["failed while it answered", "no memory"]),
        ({"raw": b"data: [DONE]\n\n"}, ["wrote nothing to any prompt"]),
        ({"raw": b"data: {}\n\n"}, ["broke off after 0 chunks of an answer"]),
    ],
)
def test_a_server_that_cannot_be_measured_is_one_line(
    run: Callable[..., Ended], start: Start, changed: dict[str, Any], parts: list[str]
) -> None:
    fake = start(**changed)
    ended = run("--url", fake.url)
    errors = ended.err.splitlines()
    assert ended.code == 2 and errors[-1].startswith(f"speckv: {fake.url}: ")
    assert sum(line.startswith("speckv: ") for line in errors) == 1 and "Traceback" not in ended.err
    assert all(part in errors[-1] for part in parts), errors[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "localhost:30000"], "--url localhost:30000: not an address; give it as http://host:30000"),
        (["--url", "http://a:port"], "not an address"),
        (["--url", "http://me:secret" + "@a"], "no user and password in an address"),
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9: cannot be reached"),
        (["--url", "http://a", "--url", "http://a"], "a is there twice; give each a name"),
        (["--url", "http://a", "--url", "plain=http://b"], "give plain=http://b first"),
        (["--url", "a b=http://a"], "a name is of up to 40 letters"),
        (["--url", "http://a", "--policy", "plain"], "--policy: the servers at --url are measured as they run"),
        (["--url", "http://a", "--concurrency", "9"], "concurrency 9: there are only 2 prompts; give --count 9"),
        (["--url", "http://a", "--api-key", "two words"], "no spaces, line ends or letters outside ASCII"),
        (["--model", "m"], "--model: is of servers at --url"),
    ],
)
def test_a_wrong_command_line_is_one_line(run: Callable[..., Ended], arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith("speckv: ") and ended.err.count("\n") == 1 and said in ended.err, ended.err
    assert not list(Path.cwd().iterdir())
