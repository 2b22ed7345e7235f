import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import whybox
from whybox.cli import app, asked
from whybox.cli.classes import class_index
from whybox.cli.methods import written
from whybox.core.errors import CheckpointError, InputError, TargetError, UnknownNameError
from whybox.datasets import load

MODEL_FILE = """
import torch
from torch import nn
import whybox
from whybox.models import ImagePreprocess

def flat():
    torch.manual_seed(0)
    module, preprocess = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), ImagePreprocess(mode="L", resize=(8, 8))
    return whybox.Model(module, name="flat", preprocess=preprocess, labels=["a", "b", "c"])

def bare():
    return nn.Linear(3, 2)

def any_size():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return whybox.Model(module, name="any size", preprocess=ImagePreprocess(mode="L"))

def misfit():
    return whybox.Model(nn.Linear(5, 2), name="misfit", preprocess=ImagePreprocess(mode="L", resize=(8, 8)))

def broken():
    raise RuntimeError("out of order")
"""
DIGITS = ("--model", "digits")
LOADED = "raise SystemExit('the model was loaded')"


def run(*argv: str) -> Result:
    with mock.patch.object(sys, "argv", ["whybox", *argv]):
        return CliRunner().invoke(app, argv, catch_exceptions=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with three held-out digits as pictures, a few bad files and some models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    inputs, _ = load("digits")
    Path("digits").mkdir()
    for i in range(3):
        pixels = (inputs[i, 0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(f"digits/{'cab'[i]}.png")
    Image.open("digits/a.png").save("one.png")
    Image.new("L", (24, 16)).save("wide.png")
    Path("digits/notes.txt").write_text("no picture")
    Path("truncated.png").write_bytes(Path("one.png").read_bytes()[:-40])
    Path("text.png").write_text("no picture")
    Path("models.py").write_text(MODEL_FILE)
    Path("loaded.py").write_text(LOADED)
    save_file({"x": torch.zeros(1)}, "other.safetensors")
    Path("damaged.pt").write_bytes(Path("one.png").read_bytes())
    Path("code.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    return tmp_path


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """A net as small as this gains nothing from threads, and loses much where the machine has other work to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def subprocess_run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


class TestStart:
    def test_help_needs_neither_torch_nor_rich(self) -> None:
        code = (
            "import sys\nfrom whybox.cli import main\nsys.argv[1:] = ['--help']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "assert not {'torch', 'numpy', 'rich', 'matplotlib'} & set(sys.modules)"
        )
        assert "explain" in subprocess_run(code)

    def test_help_answers_at_once(self) -> None:
        """In seconds of the processor, which other work on the machine hardly changes."""

        def seconds() -> float:
            before = os.times()
            subprocess_run("import sys\nfrom whybox.cli import main\nsys.argv[1:] = ['--help']\nmain()")
            now = os.times()
            return now.children_user + now.children_system - before.children_user - before.children_system

        assert min(seconds() for _ in range(5)) < 0.3

    def test_names_of_methods_need_no_torch(self) -> None:
        assert "grad_cam" in subprocess_run(
            "import sys, whybox\nprint(whybox.methods())\nassert 'torch' not in sys.modules"
        )

    def test_version(self) -> None:
        result = run("--version")
        assert (result.exit_code, result.stdout) == (0, f"whybox {whybox.__version__}\n")

    def test_no_command_shows_help(self) -> None:
        assert "demo" in run().output

    def test_unknown_command_and_option(self) -> None:
        assert run("explane").exit_code == 2
        assert run("explain", "one.png", "--modell", "digits").exit_code == 2


class TestAsked:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("a,b", ["a", "b"]),
            ("a(of=b(c=1, d=2), e=(1, 2)),f", ["a(of=b(c=1, d=2), e=(1, 2))", "f"]),
            ("a(layer='x,)y'),b", ["a(layer='x,)y')", "b"]),
            ("a", ["a"]),
            ("", [""]),
        ],
    )
    def test_methods_are_split_outside_brackets_and_quotes(self, text: str, parts: list[str]) -> None:
        assert asked.split(text) == parts

    def test_the_same_method_twice_is_one(self) -> None:
        assert asked.methods("gradient, gradient,smooth_grad(samples=4),") == [
            whybox.Gradient(),
            whybox.SmoothGrad(samples=4),
        ]

    def test_pictures_of_a_folder_are_sorted_and_of_a_pattern_too(self) -> None:
        inside = [Path("digits/a.png"), Path("digits/b.png"), Path("digits/c.png")]
        assert asked.pictures(["digits"]) == inside
        assert asked.pictures(["digits/*.png"]) == inside
        assert asked.pictures([str(Path("digits").resolve() / "*.png")]) == [path.resolve() for path in inside]
        assert asked.pictures(["digits/b.png", "digits"]) == [inside[1], inside[0], inside[2]]

    def test_a_file_with_brackets_in_its_name_is_no_pattern(self) -> None:
        Path("a[1].png").touch()
        assert asked.pictures(["a[1].png"]) == [Path("a[1].png")]

    def test_weights_go_with_their_models(self) -> None:
        assert asked.models(("digits",), ()) == [("digits", None)]
        assert asked.models(("digits", "digits"), ("default", "random")) == [("digits", None), ("digits", "random")]


class TestCompare:
    QUICK = ("--methods", "gradient,lrp", "--metrics", "deletion(steps=2)", "--n", "8")

    def test_end_to_end(self) -> None:
        result = run("compare", *DIGITS, "--data", "digits", *self.QUICK, "-o", "out.html", "--json", "out.json")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        lines = result.stdout.splitlines()
        assert lines[0].startswith("digits, n = 8")
        assert lines[-1] == "out.html"
        record = json.loads(Path("out.json").read_text())
        assert " ".join(record["recommendation"].split()) in " ".join(result.stdout.split())
        assert {row["infill"] for row in record["results"]} == {"Zero", "UniformNoise"}
        assert {row["method"] for row in record["results"] if not row["control"]} == {"Gradient", "LRP"}
        assert whybox.Comparison.load("out.json").n == 8
        assert "whybox compare --model digits --data digits" in Path("out.html").read_text()

    def test_json_to_the_output(self) -> None:
        result = run("compare", *DIGITS, "-d", "digits", *self.QUICK, "--json", "-")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["model"] == "digits"
        assert "whybox-comparison.html" in result.stderr

    def test_a_folder_whose_classes_are_not_the_models(self) -> None:
        for name in ("a", "b"):
            Path(f"pictures/{name}").mkdir(parents=True)
            Image.open(f"digits/{name}.png").save(f"pictures/{name}/1.png")
        result = run("compare", *DIGITS, "-d", "folder:pictures", *self.QUICK)
        assert result.exit_code == 0, result.output
        assert "the folder holds 2 classes, the model knows 10" in result.stderr
        assert "n = 2" in result.stdout
        assert "predicts another class" not in result.stdout

    def test_a_method_that_fails_is_shown_and_said(self) -> None:
        result = run("compare", *DIGITS, "-d", "digits", *self.QUICK, "--methods", "gradient,grad_cam(layer='none')")
        assert result.exit_code == 1
        assert "GradCAM cannot explain digits" in result.stderr
        assert "GradCAM could not be scored" in " ".join(result.stdout.split())
        assert Path("whybox-comparison.html").is_file()

    def test_interrupted_it_writes_what_there_is(self) -> None:
        with mock.patch("whybox.attribution.backprop.lrp.LRP.attribute", side_effect=KeyboardInterrupt):
            result = run("compare", *DIGITS, "-d", "digits", *self.QUICK, "--json", "out.json")
        assert result.exit_code == 130
        assert "2 of 12 scores were measured" in result.stderr
        assert "written: whybox-comparison.html, out.json" in result.stderr
        assert not whybox.Comparison.load("out.json").complete

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--methods", "gradiant"), "did you mean 'gradient'"),
            (("--metrics", "deletoin"), "did you mean 'deletion'"),
            (("--metrics", ","), "--metrics is empty"),
            (("--output", "out.txt"), "let its name end in .html"),
            (("--data", "digit"), "no data set 'digit'"),
            (("--data", "20newsgroups"), "takes pictures"),
            (("--split", "all"), "no split 'all'"),
            (("--seed", "-1"), "out of range"),
        ],
    )
    def test_what_is_asked_wrongly(self, options: tuple[str, ...], message: str) -> None:
        result = run("compare", *DIGITS, "-d", "digits", *options)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_it_takes_at_least_one_sample(self) -> None:
        assert run("compare", *DIGITS, "-d", "digits", "--n", "0").exit_code == 2


class TestMetrics:
    def test_all_are_listed(self) -> None:
        result = run("metrics")
        assert result.exit_code == 0
        for name in whybox.metrics():
            assert re.search(rf"^{name} ", result.stdout, re.MULTILINE)

    @pytest.mark.parametrize("name", whybox.metrics())
    def test_one_is_described_and_can_be_asked_for_as_it_says(self, name: str) -> None:
        result = run("metrics", name)
        assert result.exit_code == 0
        for part in ("Cost: ", "Limits: ", "Source: ", "Family: ", "Better: "):
            assert part in result.stdout
        [written_so] = re.findall(r'--metrics "(.*)"', result.stdout)
        assert asked.metrics(written_so) == [whybox.metric(name)]

    def test_an_unknown_one(self) -> None:
        result = run("metrics", "deletoin")
        assert result.exit_code == 2
        assert "did you mean 'deletion'" in result.stderr


class TestClasses:
    LABELS = ("tabby", "tiger cat", "Persian cat", "catamaran", "crane", "crane", "sea_lion")

    @pytest.mark.parametrize(
        ("text", "index"),
        [("0", 0), ("tabby", 0), ("TABBY", 0), ("persian", 2), ("cata", 3), ("sea lion", 6), ("Sea_Lion", 6), ("6", 6)],
    )
    def test_index_label_or_part(self, text: str, index: int) -> None:
        assert class_index(text, self.LABELS, 7) == index

    def test_a_whole_word_goes_before_a_part_of_one(self) -> None:
        with pytest.raises(InputError, match=r"'cat' fits 2 classes: 1 'tiger cat', 2 'Persian cat'; give the index"):
            class_index("cat", self.LABELS, 7)

    def test_labels_that_occur_twice_are_listed(self) -> None:
        with pytest.raises(InputError, match="4 'crane', 5 'crane'"):
            class_index("crane", self.LABELS, 7)

    def test_a_miss_offers_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'tabby'"):
            class_index("taby", self.LABELS, 7)

    @pytest.mark.parametrize("text", ["7", "-1"])
    def test_an_index_must_be_in_range(self, text: str) -> None:
        with pytest.raises(TargetError, match=f"class {text} is out of range: the classes go from 0 to 6"):
            class_index(text, self.LABELS, 7)

    def test_without_labels_only_an_index_will_do(self) -> None:
        assert class_index("3", None, 4) == 3
        with pytest.raises(InputError, match="no labels: give the class's index, from 0 to 3"):
            class_index("cat", None, 4)

    @pytest.mark.parametrize("text", ["", "  ", "_"])
    def test_nothing_is_no_part_of_a_label(self, text: str) -> None:
        with pytest.raises(UnknownNameError):
            class_index(text, self.LABELS, 7)


class TestExplain:
    def test_one_picture_end_to_end(self) -> None:
        result = run("explain", "one.png", "--model", "digits", "-o", "out.html", "--json", "out.json")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        lines = result.stdout.splitlines()
        assert lines[0] == "one.png"
        assert lines[-1] == "out.html"
        for method in ("input_x_gradient", "integrated_gradients", "smooth_grad", "grad_cam"):
            said = lines[lines.index(f"    {method}") + 1].strip()
            assert said.startswith(("no objection: ", "with care: ", "do not rely on this: "))
        assert "whybox explain one.png --model digits -o out.html --json out.json" in Path("out.html").read_text()
        record = json.loads(Path("out.json").read_text())
        assert record["command"] == "whybox explain one.png --model digits -o out.html --json out.json"
        assert len(record["models"]) == 1

    def test_several_pictures_are_one_report(self) -> None:
        result = run("explain", "digits", "wide.png", "--model", "digits", "--methods", "gradient")
        assert result.exit_code == 0, result.output
        named = [line for line in result.stdout.splitlines() if line.endswith(".png")]
        assert named == [*(str(Path("digits", name)) for name in ("a.png", "b.png", "c.png")), "wide.png"]
        text = Path("whybox-report.html").read_text()
        assert all(name in text for name in named)

    def test_two_models_side_by_side(self) -> None:
        result = run(
            *("explain", "one.png", "--model", "digits", "--weights", "default", "--methods", "gradient"),
            *("--model", "models.py:flat", "--weights", "default", "--target", "1", "--json", "out.json"),
        )
        assert result.exit_code == 0, result.output
        assert len(json.loads(Path("out.json").read_text())["models"]) == 2
        assert "digits" in result.stdout
        assert "flat" in result.stdout
        assert "flat" in Path("whybox-report.html").read_text()

    def test_labels_are_resolved_for_each_model(self) -> None:
        result = run("explain", "one.png", "-m", "models.py:flat", "-m", "digits", "--target", "b")
        assert result.exit_code == 2
        assert "there is no class 'b'" in result.stderr

    def test_target_and_versus(self) -> None:
        result = run(
            "explain", "one.png", "-m", "models.py:flat", "--methods", "gradient", "--target", "C", "--versus", "a"
        )
        assert result.exit_code == 0, result.output
        assert "the score of 'c' (2) minus that of 'a' (0)" in result.stdout

    def test_a_prediction_is_not_contrasted_with_itself(self) -> None:
        predicted = int(whybox.models.load("digits")(load("digits")[0][:3])[0].argmax())
        result = run("explain", "digits/c.png", *DIGITS, "--versus", str(predicted))
        assert result.exit_code == 2
        assert f"predicts class {predicted}, which --versus names, for {str(Path('digits/c.png'))!r}" in result.stderr

    def test_a_layer_and_a_seed(self) -> None:
        result = run(
            *("explain", "one.png", "-m", "digits", "--methods", "smooth_grad(samples=2)"),
            *("--layer", "relu2", "--seed", "3", "--json", "out.json"),
        )
        assert result.exit_code == 0, result.output
        [record] = json.loads(Path("out.json").read_text())["models"]
        assert "relu2" in json.dumps(record)

    def test_json_on_stdout_leaves_nothing_else_there(self) -> None:
        result = run("explain", "one.png", "-m", "digits", "--methods", "gradient", "--json", "-")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["models"]
        assert result.stderr.splitlines()[-1] == "whybox-report.html"

    def test_a_default_method_that_does_not_apply_is_said_and_left_out(self) -> None:
        result = run("explain", "one.png", "-m", "models.py:flat")
        assert result.exit_code == 0, result.output
        assert "grad_cam\n        left out: " in result.stdout
        assert result.stderr == ""

    def test_a_method_that_was_asked_for_and_does_not_apply_is_a_failure(self) -> None:
        result = run("explain", "one.png", "-m", "models.py:flat", "--methods", "gradient,grad_cam")
        assert result.exit_code == 1
        assert "grad_cam cannot explain flat" in result.stderr
        assert Path("whybox-report.html").exists()

    def test_interrupting_says_what_was_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stop = KeyboardInterrupt()

        def interrupt(*_args: object, **_kwargs: object) -> None:
            raise stop

        monkeypatch.setattr("whybox.report.collect", interrupt)
        result = run("explain", "one.png", "-m", "digits")
        assert result.exit_code == 130
        assert result.stderr == "\nInterrupted while explaining digits; nothing was written.\n"
        stop.add_note("RISE stopped after 24 of 300 model evaluations")
        result = run("explain", "one.png", "-m", "digits")
        assert "digits (RISE stopped after 24 of 300 model evaluations); nothing was written." in result.stderr

    def test_an_error_that_is_nobodys_fault_but_ours_passes_with_its_traceback(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("whybox.report.collect", lambda *_args, **_kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("explain", "one.png", "-m", "digits")

    def test_a_full_disk_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(*_args: object, **_kwargs: object) -> None:
            raise OSError(28, "No space left on device", "whybox-report.html")

        monkeypatch.setattr("whybox.report.write", write)
        result = run("explain", "one.png", "-m", "digits", "--methods", "gradient")
        assert result.exit_code == 1
        assert "No space left" in result.stderr


class TestFit:
    """Fitted as quickly as they can be: what they learn is not looked at."""

    DATA = ("--model", "digits", "--data", "digits")
    L2X = "l2x(k=8, steps=4)"

    def test_a_digit_is_explained_by_what_was_fitted(self) -> None:
        fitted = run("fit", self.L2X, *self.DATA, "-o", "l2x.safetensors", "--seed", "3")
        assert fitted.exit_code == 0, fitted.output
        assert fitted.stderr == ""
        found = whybox.Fitted.load("l2x.safetensors")
        pictures, _ = load("digits", "train")
        assert found == whybox.L2X(k=8, steps=4).fit(whybox.models.load("digits"), pictures, seed=3)
        assert fitted.stdout.splitlines()[-1] == "l2x.safetensors"
        assert found.digest in fitted.stdout
        assert "accuracy" in fitted.stdout
        [command] = re.findall(r"whybox (explain .*)", fitted.stdout)
        command = command.replace("IMAGE", "one.png").replace("l2x.safetensors", "l2x.safetensors,gradient")
        result = run(*command.split(), "--json", "out.json")
        assert result.exit_code == 0, result.output
        assert "    l2x.safetensors\n" in result.stdout
        assert "validation accuracy" in result.stdout
        [record] = json.loads(Path("out.json").read_text())["models"]
        configuration = record["methods"][0]["configuration"]
        assert (configuration["fitted"], configuration["file"]) == (found.digest, "l2x.safetensors")
        assert whybox.method(**configuration) == found
        assert "validation_accuracy" in record["pictures"][0]["explanations"][0]["facts"]

    def test_the_report_can_be_made_again_as_long_as_the_file_is_the_same(self) -> None:
        run("fit", self.L2X, *self.DATA, "-o", "l2x.safetensors")
        assert run("explain", "one.png", *DIGITS, "--methods", "l2x.safetensors").exit_code == 0
        page = html.unescape(Path("whybox-report.html").read_text())
        [script] = re.findall(r"<code>(import torch.*?)</code>", page, re.DOTALL)
        exec(script, {})
        assert "validation accuracy" in Path("report.html").read_text()
        run("fit", self.L2X, *self.DATA, "-o", "l2x.safetensors", "--seed", "1")
        with pytest.raises(CheckpointError, match=r"l2x\.safetensors does not hold the l2x with the digest"):
            exec(script, {})

    def test_a_map_that_is_the_same_for_every_class_contrasts_none(self) -> None:
        run("fit", self.L2X, *self.DATA, "-o", "l2x.safetensors")
        run("fit", "casme(steps=4, width=4, pool=2)", *self.DATA, "-o", "casme.safetensors")
        files = "l2x.safetensors,casme.safetensors"
        assert run("explain", "digits", *DIGITS, "--methods", files, "--json", "a.json").exit_code == 0
        run("explain", "one.png", *DIGITS, "--methods", "smooth_grad_squared(samples=2)", "--json", "b.json")
        [without], [with_them] = (json.loads(Path(name).read_text())["models"] for name in ("a.json", "b.json"))
        assert without["pictures"][0]["contrasts"] is None
        assert with_them["pictures"][0]["contrasts"] is not None

    def test_what_learns_from_classes_gets_them(self) -> None:
        casme = "casme(steps=4, width=4, pool=2)"
        result = run("fit", casme, *self.DATA, "-o", "casme.safetensors")
        assert result.exit_code == 0, result.output
        model, data = whybox.models.load("digits"), load("digits", "train")
        assert whybox.Fitted.load("casme.safetensors") == whybox.method(casme).fit(model, data)

    def test_files_are_compared_too(self) -> None:
        run("fit", "expected_gradients(samples=2)", *self.DATA, "-o", "a.safetensors")
        run("fit", "expected_gradients(samples=2)", *self.DATA, "--split", "test", "-o", "b.safetensors")
        options = ("--methods", "a.safetensors,b.safetensors", "--metrics", "deletion(steps=2)", "--n", "8")
        result = run("compare", *self.DATA, *options, "--json", "out.json")
        assert result.exit_code == 0, result.output
        record = json.loads(Path("out.json").read_text())
        compared = {row["method"] for row in record["results"] if not row["control"]}
        assert compared == {f"ExpectedGradients (file='{name}.safetensors')" for name in "ab"}
        for name in "ab":
            assert f"file='{name}.safetensors'" in html.unescape(Path("whybox-comparison.html").read_text())

    @pytest.mark.parametrize("command", [("explain", "one.png", *DIGITS), ("compare", *DATA)])
    def test_a_method_that_has_not_learned_yet_comes_with_both_commands(self, command: tuple[str, ...]) -> None:
        result = run(*command, "--methods", "gradient,casme(steps=4)")
        assert result.exit_code == 2
        assert "First: whybox fit 'casme(steps=4)' --model digits --data DATA -o casme.safetensors" in result.stderr
        assert "then: whybox explain IMAGE --model digits --methods casme.safetensors" in result.stderr

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (("gradient",), "gradient has nothing to learn: explain with it as it is; those that learn: expected_grad"),
            (("l2xx",), "did you mean 'l2x'"),
            (("l2x(k=0)",), "k, steps and batch ≥ 1"),
            (("fitted.safetensors",), "has been fitted already"),
            (("l2x", "-o", "no/l2x.safetensors"), "does not exist; make it first"),
            (("l2x", "-o", "l2x.pt"), "end in .safetensors"),
            (("l2x", "--weights", "other.safetensors", "-o", "./other.safetensors"), "holds the model's weights"),
            (("l2x", "--seed", "-1"), "--seed -1 is out of range"),
            (("l2x", "--device", "gpu"), "a device is cpu"),
        ],
    )
    def test_what_can_be_known_before_is_said_before_the_model_is_loaded(
        self, argv: tuple[str, ...], advice: str
    ) -> None:
        whybox.Fitted(whybox.ExpectedGradients(), {"baselines": torch.zeros(1)}).save("fitted.safetensors")
        output = () if "-o" in argv else ("-o", "out.safetensors")
        result = run("fit", *argv, "--model", "loaded.py:factory", "--data", "digits", *output)
        assert result.exit_code == 2, result.output
        assert advice in result.stderr
        assert not Path("out.safetensors").exists()

    def test_data_without_the_classes_that_it_takes(self) -> None:
        for name in "ab":
            Path(f"pictures/{name}").mkdir(parents=True)
            Image.open(f"digits/{name}.png").save(f"pictures/{name}/1.png")
        for folder, advice in (("digits", "folder:digits has none; put"), ("pictures", "the folder holds 2 classes")):
            result = run("fit", "casme", *DIGITS, "-d", f"folder:{folder}", "-o", "casme.safetensors")
            assert result.exit_code == 2, result.output
            assert advice in result.stderr

    @pytest.mark.parametrize("file", ["none.safetensors", "other.safetensors"])
    def test_a_file_that_holds_no_method(self, file: str) -> None:
        result = run("explain", "one.png", "--model", "loaded.py:factory", "--methods", file)
        assert result.exit_code == 2
        assert file in result.stderr
        assert "whybox has saved" in result.stderr

    def test_interrupted_it_leaves_what_was_there(self) -> None:
        Path("l2x.safetensors").write_text("an older one")
        with mock.patch("whybox.attribution.learned.l2x.L2X.learn", side_effect=KeyboardInterrupt):
            result = run("fit", "l2x", *self.DATA, "-o", "l2x.safetensors")
        assert result.exit_code == 130
        assert result.stderr == "\nInterrupted while fitting l2x; nothing was written.\n"
        with mock.patch("pathlib.Path.replace", side_effect=KeyboardInterrupt):
            result = run("fit", self.L2X, *self.DATA, "-o", "l2x.safetensors")
        assert result.exit_code == 130
        assert Path("l2x.safetensors").read_text() == "an older one"
        assert not list(Path().glob(".*.tmp"))


class TestAskedWrongly:
    """Exit code 2 and advice."""

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (
                ("explain", "one.png"),
                "say which model to explain with --model: digits (comes with whybox), torchvision",
            ),
            (("explain", *DIGITS), "Missing argument"),
            (("explain", "none.png", *DIGITS), "'none.png' does not exist; give the path of a picture"),
            (("explain", "n*.png", *DIGITS), "no file fits the pattern 'n*.png'"),
            (("explain", ".", *DIGITS, "-o", "no/x.html"), "no"),
            (("explain", "truncated.png", *DIGITS), "truncated.png cannot be decoded: it is truncated or damaged"),
            (("explain", "text.png", *DIGITS), "text.png cannot be read as a picture"),
            (("explain", "huge.png", *DIGITS), "huge.png has more than 50 megapixels"),
            (("explain", "one.png", "-m", "digit"), "did you mean 'digits'"),
            (("explain", "one.png", "-m", "none.py:f"), "there is no file 'none.py'"),
            (("explain", "one.png", "-m", "models.py:flatt"), "did you mean 'flat'"),
            (("explain", "one.png", "-m", "models.py:bare"), "return whybox.Model(module, preprocess="),
            (("explain", "one.png", *DIGITS, *DIGITS), "given twice with the same weights"),
            (("explain", "one.png", *DIGITS * 3), "one model is explained or two are compared, not 3"),
            (("explain", "one.png", *DIGITS, "-m", "models.py:flat", "--weights", "random"), "once for each model"),
            (("explain", "one.png", *DIGITS, "--weights", "none.pt"), "there is no file 'none.pt'"),
            (("explain", "one.png", *DIGITS, "--weights", "code.pt"), "run code when read, so it was not read"),
            (("explain", "one.png", *DIGITS, "--weights", "damaged.pt"), "damaged.pt is damaged"),
            (("explain", "one.png", *DIGITS, "--weights", "other.safetensors"), "does not fit the model"),
            (("explain", "one.png", *DIGITS, "--methods", "gradcam"), "did you mean 'grad_cam'"),
            (("explain", "one.png", *DIGITS, "--methods", "smooth_grad(sample=2)"), "did you mean 'samples'"),
            (("explain", "one.png", *DIGITS, "--methods", "smooth_grad(samples=0)"), "samples ≥ 1"),
            (("explain", "one.png", *DIGITS, "--methods", "smooth_grad(samples="), "write name(field=value"),
            (("explain", "one.png", *DIGITS, "--methods", ","), "--methods is empty"),
            (("explain", "one.png", *DIGITS, "--target", "10"), "out of range: the classes go from 0 to 9"),
            (("explain", "one.png", *DIGITS, "--target", "-1"), "out of range: the classes go from 0 to 9"),
            (("explain", "one.png", "-m", "models.py:flat", "--target", "bb"), "give an index from 0 to 2"),
            (("explain", "one.png", "-m", "models.py:flat", "--versus", "d"), "there is no class 'd'"),
            (("explain", "one.png", *DIGITS, "--target", "1", "--versus", "1"), "name the same class, 1"),
            (("explain", "one.png", *DIGITS, "--layer", "relu"), "there is no layer 'relu'; did you mean 'relu"),
            (("explain", "one.png", *DIGITS, "--device", "gpu"), "a device is cpu, cuda, cuda:N or mps"),
            (("explain", "one.png", *DIGITS, "--seed", "-1"), "--seed -1 is out of range"),
            (("explain", "one.png", *DIGITS, "--seed", "x"), "--seed"),
            (("explain", "one.png", *DIGITS, "-o", "one.png"), "let its name end in .html"),
            (("explain", "one.png", *DIGITS, "--json", "one.png"), "would overwrite the report or a picture"),
            (("explain", "one.png", "wide.png", "-m", "models.py:any_size"), "explain them one at a time"),
            (("layers", "digit"), "did you mean 'digits'"),
            (("methods", "gradcam"), "did you mean 'grad_cam'"),
            (("demo", "-o", "no/demo.html"), "no"),
        ],
    )
    def test_one_clear_message(self, argv: tuple[str, ...], advice: str) -> None:
        if "huge.png" in argv:
            Image.new("1", (10000, 10000)).save("huge.png")
        result = run(*argv)
        assert result.exit_code == 2, result.output
        assert advice in result.stderr
        assert result.stdout == ""

    def test_a_folder_without_pictures(self) -> None:
        Path("empty").mkdir()
        result = run("explain", "empty", *DIGITS)
        assert result.exit_code == 2
        assert "the folder 'empty' holds no pictures" in result.stderr

    def test_a_device_that_is_not_there(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        result = run("explain", "one.png", *DIGITS, "--device", "cuda")
        assert result.exit_code == 2
        assert "leave --device out to use the CPU" in result.stderr

    @pytest.mark.parametrize(
        "argv",
        [
            ("one.png", "-o", "no/such/report.html"),
            ("one.png", "-o", "digits"),
            ("one.png", "-o", "report.pdf"),
            ("one.png", "--json", "no/such/out.json"),
            ("one.png", "--methods", "gradcam"),
            ("one.png", "--device", "tpu"),
            ("one.png", "--seed", "-5"),
            ("one.png", "truncated.png"),
            ("one.png", "none.png"),
            ("one.png", "--weights", "none.safetensors"),
        ],
    )
    def test_what_can_be_known_before_is_said_before_the_model_is_loaded(self, argv: tuple[str, ...]) -> None:
        result = run("explain", *argv, "--model", "loaded.py:factory")
        assert result.exit_code == 2, result.output
        assert "loaded" not in result.output

    def test_the_counterproof(self) -> None:
        assert "the model was loaded" in str(run("explain", "one.png", "--model", "loaded.py:factory").exception)


class TestFailed:
    """Exit code 1 and the reason."""

    @pytest.mark.parametrize(
        ("argv", "reason"),
        [
            (("--model", "models.py:broken"), "broken() in models.py failed: RuntimeError: out of order"),
            (("--model", "models.py:misfit"), "misfit fails on an input of shape 1 × 1 × 8 × 8"),
            (("-m", "models.py:flat", "--methods", "grad_cam"), "layer"),
        ],
    )
    def test_one_clear_message(self, argv: tuple[str, ...], reason: str) -> None:
        result = run("explain", "one.png", *argv)
        assert result.exit_code == 1, result.output
        assert reason in result.stderr
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


class TestMethods:
    def test_the_table_has_every_method(self) -> None:
        result = run("methods")
        assert result.exit_code == 0
        assert result.stdout.split()[:5] == ["METHOD", "TRAINS", "LOCAL", "AGNOSTIC", "COST"]
        listed = re.findall(r"^(\w+) +(?:yes|no) ", result.stdout, re.MULTILINE)
        assert listed == whybox.methods()

    @pytest.mark.parametrize("name", whybox.methods())
    def test_each_is_described_and_written_so_that_it_can_be_read(self, name: str) -> None:
        result = run("methods", name)
        assert result.exit_code == 0
        assert "Source: " in result.stdout
        call = result.stdout.splitlines()[-1].partition('"')[2].rstrip('"')
        assert whybox.method(call) == whybox.method(name)

    def test_fields_are_written_as_they_are_read(self) -> None:
        for text in ("smooth_grad(of=integrated_gradients(steps=8), samples=4)", "grad_cam(layer=('a', 'b'))"):
            assert written(whybox.method(text)) == text


class TestLayers:
    def test_names_types_shapes_and_the_one_for_grad_cam(self) -> None:
        result = run("layers", "digits")
        assert result.exit_code == 0
        rows = [line.split("  ") for line in result.stdout.splitlines()]
        cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        assert cells[1] == ["conv1", "Conv2d", "32 × 8 × 8"]
        assert [row[0] for row in cells if row[-1] == "grad_cam"] == ["relu4"]

    @pytest.mark.parametrize("factory", ["bare", "any_size"])
    def test_without_an_input_size_the_names_alone(self, factory: str) -> None:
        result = run("layers", f"models.py:{factory}")
        assert result.exit_code == 0
        assert "LAYER" in result.stdout or factory == "bare"
        assert "does not say what size its input has" in result.stderr

    def test_a_model_that_does_not_run(self) -> None:
        result = run("layers", "models.py:misfit")
        assert result.exit_code == 0
        assert "the model fails on an input of shape (1, 1, 8, 8)" in result.stderr


class TestDoctor:
    def test_a_sound_installation(self) -> None:
        result = run("doctor")
        assert result.exit_code == 0, result.output
        assert torch.__version__ in result.stdout
        assert "integrated gradients add up" in result.stdout

    def test_what_is_broken_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("whybox.cli.doctor.held_out_digits", lambda: 1 / 0)
        result = run("doctor")
        assert result.exit_code == 1
        assert "BROKEN  digits" in result.stdout
        assert result.stdout.endswith("Broken: digits.\n")

    def test_a_missing_extra_is_not_broken_and_comes_with_its_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("whybox.cli.doctor._EXTRAS", {"no-such-package": "vision"})
        result = run("doctor")
        assert result.exit_code == 0
        assert "pip install 'whybox[vision]'" in result.stdout


class TestDemo:
    def test_it_explains_two_digits(self) -> None:
        result = run("demo")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert result.stdout.splitlines()[-1] == "whybox-demo.html"
        assert Path("whybox-demo.html").stat().st_size < 2_000_000
        assert "whybox demo" in Path("whybox-demo.html").read_text()
