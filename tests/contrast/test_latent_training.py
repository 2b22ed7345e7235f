"""Training: what it keeps, how it goes on after being killed, and what it refuses."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from importlib.resources import files

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

from whybox import datasets, models
from whybox.cli.commands import app
from whybox.contrast.latent import VAE, WGAN, Latent, train, training
from whybox.core.errors import CheckpointError, InputError, ModelError, UnknownNameError

KINDS = {
    "wgan-gp": WGAN(size=3, maps=(4,), steps=12, encoder_steps=6, batch=8, critic_steps=2),
    "wgan": WGAN("clip", size=3, maps=(4,), steps=2, encoder_steps=16, batch=8, critic_steps=2),
    "vae": VAE(size=2, maps=(4,), steps=18, batch=8),
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(training, "MEASURED", 8)


def pictures(n=40):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def quiet(data, kind, out=None, **options):
    return train(data, kind, out, progress=False, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_can_be_used_for_what_a_latent_model_is_for(kind, tmp_path):
    before = torch.get_rng_state()
    latent = quiet(pictures(), KINDS[kind], tmp_path / "a.latent")
    assert torch.equal(torch.get_rng_state(), before)
    assert latent.shape == (1, 4, 4)
    assert latent.encode(pictures(2)).shape == (2, latent.size)
    assert latent.spread.shape == (101,)
    assert (latent.critic is None) == (kind == "vae")
    assert latent.training["kind"] == kind
    assert Latent.load(tmp_path / "a.latent") == latent
    assert not (tmp_path / "a.latent.training").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.latent"]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_it_goes_on_to_the_same_weights(kind, tmp_path, monkeypatch):
    """A checkpoint at every step, and an end after any of them, also between the stages."""
    whole = quiet(pictures(), KINDS[kind])
    monkeypatch.setattr(training, "EVERY", 0.0)
    write = training.files.write
    for stop in (1, 2, 12, 13, 18):
        count = 0

        def once(*arguments, stop=stop):
            nonlocal count
            write(*arguments)
            count += 1
            if count == stop:
                raise StoppedError

        out = tmp_path / f"{stop}.latent"
        with monkeypatch.context() as patch:
            patch.setattr(training.files, "write", once)
            with pytest.raises(StoppedError):
                quiet(pictures(), KINDS[kind], out)
        assert not out.exists()
        assert (tmp_path / f"{stop}.latent.training").exists()
        assert quiet(pictures(), KINDS[kind], out) == whole


SCRIPT = """
    import sys, torch
    from whybox.contrast.latent import WGAN, train, training
    torch.set_num_threads(1)
    training.EVERY, training.MEASURED = 0.0, 8
    data = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    kind = WGAN(size=3, maps=(4,), steps=int(sys.argv[2]), encoder_steps=10, batch=8, critic_steps=2)
    train(data, kind, sys.argv[1], progress=False)
"""


def test_killed_it_goes_on_to_the_same_file(tmp_path):
    """SIGKILL at any moment, checkpoints being written all the time; then once more, to the end."""
    torch.set_num_threads(1)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    out, checkpoint = tmp_path / "a.latent", tmp_path / "a.latent.training"
    command = [sys.executable, str(script), str(out), "40"]
    for _ in range(2):
        process = subprocess.Popen(command, env=dict(os.environ))
        began = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > began):
            time.sleep(0.005)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert checkpoint.exists()
        assert not out.exists()
    subprocess.run(command, check=True, timeout=200)
    whole = tmp_path / "whole.latent"
    subprocess.run([sys.executable, str(script), str(whole), "40"], check=True, timeout=200)
    assert out.read_bytes() == whole.read_bytes()


def test_the_same_seed_gives_the_same_and_another_another():
    kind = KINDS["vae"]
    assert quiet(pictures(), kind, seed=1) == quiet(pictures(), kind, seed=1)
    assert quiet(pictures(), kind, seed=1) != quiet(pictures(), kind, seed=2)


def test_a_finished_training_is_read_and_not_done_again(tmp_path, monkeypatch):
    latent = quiet(pictures(), KINDS["vae"], tmp_path / "a.latent")
    monkeypatch.setattr(VAE, "course", None)
    assert quiet(pictures(), KINDS["vae"], tmp_path / "a.latent") == latent
    with pytest.raises(InputError, match=r"another training \(seed 0, not 1\)"):
        quiet(pictures(), KINDS["vae"], tmp_path / "a.latent", seed=1)


def stopped(path, monkeypatch):
    """A training's checkpoint."""

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "EVERY", 0.0)
        patch.setattr(Latent, "measured", fail)
        with pytest.raises(KeyboardInterrupt):
            quiet(pictures(), KINDS["vae"], path)
    return path.with_name(f"{path.name}.training")


@pytest.mark.parametrize("how", ["cut", "one bit", "empty", "something else"])
def test_a_damaged_checkpoint_is_recognised(how, tmp_path, monkeypatch):
    out = tmp_path / "a.latent"
    checkpoint = stopped(out, monkeypatch)
    content = bytearray(checkpoint.read_bytes())
    if how == "one bit":
        content[-3] ^= 1
    elif how == "something else":
        content = bytearray(b"a checkpoint of something else")
    else:
        content = content[: {"cut": len(content) - 9, "empty": 0}[how]]
    checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*delete it to begin anew"):
        quiet(pictures(), KINDS["vae"], out)


def test_a_checkpoint_of_another_training_is_not_gone_on_with(tmp_path, monkeypatch):
    out = tmp_path / "a.latent"
    stopped(out, monkeypatch)
    with pytest.raises(InputError, match=r"another training.*digest"):
        quiet(pictures() / 2, KINDS["vae"], out)
    with pytest.raises(InputError, match=r"another training.*rate"):
        quiet(pictures(), VAE(size=2, maps=(4,), steps=18, batch=8, rate=0.1), out)


def test_a_training_that_diverges_says_so_and_keeps_no_checkpoint_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EVERY", 0.0)
    kind = WGAN(size=3, maps=(4,), steps=400, batch=8, rate=1e6)
    with pytest.raises(ModelError, match=r"diverged.*rate"):
        quiet(pictures(), kind, tmp_path / "a.latent")
    checkpoint = tmp_path / "a.latent.training"
    if checkpoint.exists():
        tensors, _ = training.files.read(checkpoint, training.WHAT, "")
        assert all(bool(torch.isfinite(value).all()) for value in tensors.values())


def test_loaders_and_names_are_data_too(monkeypatch):
    kind = KINDS["vae"]
    data = pictures()
    expected = quiet(data, kind)
    loader = DataLoader(TensorDataset(data, torch.zeros(len(data))), batch_size=7)
    assert quiet(loader, kind) == expected
    assert quiet([data[:11], data[11:]], kind) == expected
    latent = quiet("digits", VAE(size=2, maps=(4, 4), steps=2))
    assert latent.shape == (1, 8, 8)
    assert latent.training["data"] == "digits"


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_data_sets_by_name(name, data_dir, cifar10):
    kind = VAE(size=2, maps=(2, 2, 2), steps=1)
    root = cifar10 if name == "CIFAR10" else data_dir
    if name == "CIFAR10" and not (root / "cifar10/train").is_dir():
        pytest.skip("real data: the training split of CIFAR-10 is not unpacked")
    assert quiet(name, kind, root=root).shape == ((3, 32, 32) if name == "CIFAR10" else (1, 28, 28))


@pytest.mark.parametrize("shape", [(5,), (2, 11), (3, 5, 6)])
def test_tables_series_and_odd_pictures(shape):
    data = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    for kind in (VAE(size=2, maps=(4,), steps=3, batch=5), WGAN(size=2, maps=(4,), steps=3, encoder_steps=1, batch=5)):
        latent = quiet(data, kind)
        assert latent.decode(torch.zeros(2, 2)).shape == (2, *shape)


def test_bad_input(tmp_path):
    kind = KINDS["vae"]
    with pytest.raises(UnknownNameError, match="'wgan-gp'"):
        quiet(pictures(), "wgan-pg")
    with pytest.raises(UnknownNameError, match="MNIST"):
        quiet("mnits", kind)
    with pytest.raises(InputError, match="too few"):
        quiet(pictures(5), kind)
    with pytest.raises(InputError, match="NaN"):
        quiet(pictures() / 0 - pictures() / 0, kind)
    with pytest.raises(InputError, match="floating point"):
        quiet((pictures() * 255).byte(), kind)
    with pytest.raises(InputError, match="the same"):
        quiet(torch.ones(40, 3), kind)
    with pytest.raises(InputError, match="shape"):
        quiet(torch.rand(40), kind)
    with pytest.raises(InputError, match="loader"):
        quiet([], kind)
    with pytest.raises(InputError, match="cannot write"):
        quiet(pictures(), kind, tmp_path / "absent/a.latent")
    with pytest.raises(InputError, match="folder"):
        quiet(pictures(), kind, tmp_path)


def test_the_shipped_model_knows_digits_and_nothing_else():
    """Test digits stay of their class for the embedded classifier, which the latent model has never seen."""
    latent = Latent.load(files("whybox.contrast.latent") / "digits.safetensors")
    images = datasets.load("digits", "test")[0][:40]
    z = latent.invert(images)
    classifier = models.load("digits").module.eval()
    with torch.no_grad():
        same = classifier(latent.decode(z)).argmax(1) == classifier(images).argmax(1)
    assert same.float().mean() >= 0.95
    assert (latent.share_nearer(latent.distance(images, z)) < 1).float().mean() >= 0.95
    for strange in (1 - images, torch.rand_like(images)):
        assert (latent.share_nearer(latent.distance(strange, latent.invert(strange))) == 1).all()
        assert latent.realism(strange).mean() < latent.realism(images).mean()


def test_the_command(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["latent", "train", *arguments])

    out = tmp_path / "a.latent"
    done = run("digits", "--kind", "vae", "--steps", "2", "--size", "3", "--output", str(out))
    assert done.exit_code == 0, done.output
    assert f"(digits, vae, 3 → (1, 8, 8), {Latent.load(out).digest[:8]})" in done.output
    for wrong, says in ((["mnits", "-o", str(out)], "MNIST"), (["digits", "-o", str(out)], "another training")):
        failed = run(*wrong)
        assert failed.exit_code == 2
        assert says in failed.output
    assert run("digits", "--kind", "gan", "-o", str(out)).exit_code == 2
