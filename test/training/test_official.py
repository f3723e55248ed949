# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The published networks: parity with their recorded outputs, and conversion from their files.

Tests that need the recorded arrays (../shared/official) are skipped if they are missing.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bundle import NETWORKS, Bundle
from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_training.cost import shapes_only
from magicfuse_training.export.graphs import example_inputs, graphs
from magicfuse_training.export.weights import load_weights
from magicfuse_training.model import MagicFuse
from magicfuse_training.official import files as official
from magicfuse_training.official.cut_off import first_cut
from magicfuse_training.official.files import (
    OfficialFiles,
    WeightsError,
    load_official,
    published_tensors,
)
from magicfuse_training.official.verify import compare
from magicfuse_training.preset import load_preset

SHARED = Path(__file__).resolve().parents[3] / "shared" / "official"
needs_fixtures = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published networks' arrays (../shared/official) are missing"
)
FIXTURES = OfficialFiles(*(SHARED / f"{n}.safetensors" for n in ("ae", "ikr", "ckg", "mkf")))
ROLES = ("autoencoder", "ikr", "ckg", "mkf")


def convert(files: OfficialFiles, out: Path, *options: object) -> tuple[int, str]:
    paths = [getattr(files, role) for role in ROLES]
    return train("convert-official", *paths, *options, "--out", out)


@pytest.fixture(scope="module")
def fixture_model() -> MagicFuse:
    return load_official(FIXTURES, ikr_heads=2, ckg_heads=4)


@needs_fixtures
def test_every_network_and_the_whole_run_give_the_recorded_outputs(
    fixture_model: MagicFuse,
) -> None:
    results = compare(fixture_model, SHARED / "io.npz")
    assert {r.array: r.error for r in results if not r.fits} == {}
    inputs = {"image", "encoder_noise", "z_T", "zs_T"}
    assert {r.array for r in results} == set(np.load(SHARED / "io.npz").files) - inputs
    assert {r.limit for r in results if "_t" in r.array or r.array in ("latent", "decoded")} == {
        1e-4
    }
    assert max(r.limit for r in results) == 1e-3


@needs_fixtures
def test_the_paper_preset_has_every_published_tensor() -> None:
    lines = (SHARED / "state_dict_shapes.tsv").read_text().splitlines()[1:]
    published = {}
    for network, name, shape in (line.split("\t") for line in lines):
        file = "autoencoder" if network.startswith("ae_") else network
        prefix = f"{network.removeprefix('ae_')}." if network.startswith("ae_") else ""
        published[file, f"{prefix}{name}"] = [int(n) for n in shape.split("x")]
    ours = published_tensors(shapes_only(load_preset("paper")))
    assert {(f, n): list(v.shape) for f, views in ours.items() for n, v in views.items()} == (
        published
    )


@pytest.fixture(scope="module")
def fixture_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("official") / "bundle"
    size = ("--height", "128", "--width", "160")
    code, output = convert(FIXTURES, folder, "--ikr-heads", "2", "--ckg-heads", "4", *size)
    assert code == 0, output
    return Bundle.load(folder)


@needs_fixtures
@pytest.mark.slow  # this exports; test_export.py uses fewer layers of every kind
@torch.no_grad()
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_one_step_through_a_runtime_is_one_step_in_torch(
    fixture_model: MagicFuse, fixture_bundle: Bundle, backend: str
) -> None:
    manifest = fixture_bundle.manifest
    size = {"height": manifest.height, "width": manifest.width}
    model = MagicFuse(fixture_model.preset.model_copy(update=size)).eval()
    load_weights(model, fixture_bundle)  # rounded to float16
    step = ddim_steps(manifest.schedule, manifest.step_grids[25])[0]
    known = example_inputs(model)
    known |= {
        "t": torch.tensor([float(step.t)]),
        "abar_t": torch.tensor([step.abar_t], dtype=torch.float32),
        "abar_next": torch.tensor([step.abar_next], dtype=torch.float32),
    }
    runtime = select(backend)
    for name in NETWORKS:
        graph = graphs(model)[name]
        inputs = {key: known[key] for key in graph.inputs}
        results = graph(*inputs.values())
        results = results if isinstance(results, tuple) else (results,)
        want = dict(zip(graph.outputs, results, strict=True))
        network = runtime.load(fixture_bundle.path(name), manifest.networks[name])
        tensors = {key: runtime.upload(value.numpy()) for key, value in inputs.items()}
        got = {key: runtime.download(tensor) for key, tensor in network(tensors).items()}
        for key, value in want.items():
            difference = np.abs(got[key].astype(np.float64) - value.numpy())
            if value.dtype == torch.uint8:  # rounding, and ties of two classes
                assert (difference > 1).mean() < 1e-3, (name, key)
            else:
                assert difference.max() / value.abs().max() < 1e-3, (name, key)
        if name in ("ikr", "ckg"):
            known |= {f"x0_{name}": want["x0"], f"eps_{name}": want["eps"]}
        if name == "mkf":
            known |= {"x0": want["x0"], "z_seg": want["z_seg_next"]}


@pytest.fixture
def written(
    small_paper: MagicFuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> OfficialFiles:
    """Return the files of a small model in the authors' form; it replaces the published one."""
    monkeypatch.setattr(official, "load_preset", lambda name: small_paper.preset)
    files = OfficialFiles(*(tmp_path / n for n in ("ae.pth", "ikr.pth", "c.safetensors", "m.pth")))
    for role, views in published_tensors(small_paper).items():
        path = getattr(files, role)
        tensors: dict[str, object] = {k: v.clone() for k, v in views.items()}
        if role == "autoencoder":
            parts = ("encoder", "decoder")
            tensors = {
                p: {k.removeprefix(f"{p}."): v for k, v in tensors.items() if k.startswith(p)}
                for p in parts
            }
        if path.suffix == ".pth":
            torch.save(tensors, path)
        else:
            save_file(tensors, path)
    return files


def test_written_files_make_the_same_model(written: OfficialFiles, small_paper: MagicFuse) -> None:
    model = load_official(written, ikr_heads=2, ckg_heads=2)
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in small_paper.state_dict().items())
    assert load_official(written, 4, 2).preset.ikr.heads == 4


def test_base_widths_are_read_from_the_shapes(
    written: OfficialFiles, small_paper: MagicFuse
) -> None:
    preset = small_paper.preset
    wide = preset.ckg.model_copy(update={"widths": [64, 64, 128], "time_channels": 256})
    other = MagicFuse(preset.model_copy(update={"ckg": wide}))
    views = published_tensors(other)["ckg"]
    save_file({k: v.clone() for k, v in views.items()}, written.ckg)
    model = load_official(written, 2, 2)
    assert model.preset.ckg == wide and model.preset.ikr == preset.ikr

    swapped = OfficialFiles(written.autoencoder, written.ckg, written.ikr, written.mkf)
    first = r"c\.safetensors': tensor 'input_blocks\.0\.0\.weight' has width 64, .*ikr\.pth' 32"
    with pytest.raises(WeightsError, match=first):
        load_official(swapped, 2, 2)
    with pytest.raises(WeightsError, match=r"ikr heads is 3; expected a divisor of 32"):
        load_official(written, 3, 2)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_much(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path, edit: Callable[[dict[str, object]], object]) -> None:
    tensors = torch.load(path, weights_only=True)
    edit(tensors)
    torch.save(tensors, path)


@pytest.mark.parametrize(
    ("role", "damage", "message"),
    [
        ("mkf", Path.unlink, r"m\.pth' is missing"),
        ("ikr", cut, r"ikr\.pth' is cut off or not a file of weights"),  # no table of contents
        ("ikr", cut_much, r"ikr\.pth' is cut off: tensor '[a-z_.0-9]+' is incomplete"),
        ("ckg", cut, r"c\.safetensors' is cut off: tensor '[a-z_.0-9]+' is incomplete"),
        (
            "ckg",
            lambda p: p.write_bytes(b"x"),
            r"c\.safetensors' is cut off or not a file of weights",
        ),
        ("mkf", lambda p: p.write_bytes(b""), r"m\.pth' is cut off or not a file of weights"),
        ("mkf", lambda p: torch.save(Path("x"), p), r"m\.pth' .* holds other things than tensors"),
        ("mkf", lambda p: torch.save([1], p), r"m\.pth': 'content' is a list; expected names"),
        ("mkf", lambda p: torch.save({}, p), r"m\.pth': tensor 'inconv\.0\.weight' is missing"),
        (
            "ikr",
            lambda p: change(p, lambda t: t.pop("middle_block.1.norm.bias")),
            r"ikr\.pth': tensor 'middle_block\.1\.norm\.bias' is missing; ikr has \[64\]",
        ),
        (
            "autoencoder",
            lambda p: change(p, lambda t: t["decoder"].update({"deconv.0.bias": torch.ones(4)})),  # type: ignore[attr-defined]
            r"ae\.pth': tensor 'decoder\.deconv\.0\.bias' is \[4\]; autoencoder has \[3\]",
        ),
        (
            "mkf",
            lambda p: change(p, lambda t: t.update({"head.weight": torch.ones(2, 2)})),
            r"m\.pth': tensor 'head\.weight' is \[2, 2\]; mkf has no such tensor",
        ),
        ("mkf", lambda p: p.write_bytes((p.parent / "ikr.pth").read_bytes()), r"'inconv\.0\.weigh"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_first_tensor(
    written: OfficialFiles, role: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(getattr(written, role))
    with pytest.raises(WeightsError, match=message):
        load_official(written, 2, 2)


def test_a_file_is_read_whatever_it_is_called(
    written: OfficialFiles, small_paper: MagicFuse, tmp_path: Path
) -> None:
    renamed = {"ikr": tmp_path / "i.safetensors", "ckg": tmp_path / "c.pth"}
    for role, path in renamed.items():
        getattr(written, role).rename(path)
    state = load_official(replace(written, **renamed), 2, 2).state_dict()
    assert all(torch.equal(state[k], v) for k, v in small_paper.state_dict().items())


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_the_first_tensor_that_is_cut_off_is_named(kind: str, tmp_path: Path) -> None:
    """Wherever the file is truncated; a complete one has no such tensor."""
    tensors = {"a": torch.randn(100), "b": torch.randn(300).half(), "c": torch.randn(4, 50)}
    whole, cut_off = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    save = torch.save if kind == "pth" else save_file
    save(tensors, whole)
    content = whole.read_bytes()
    where = {name: content.index(bytes(t.numpy().data)) for name, t in tensors.items()}
    for name, tensor in tensors.items():
        for size in (where[name] + 1, where[name] + tensor.nbytes - 1):
            cut_off.write_bytes(content[:size])
            assert first_cut(cut_off) == name, size
    assert first_cut(whole) is None


def record(model: MagicFuse, path: Path, **changes: np.ndarray) -> None:
    """Write a model's own outputs as if they were the published networks' arrays."""
    torch.manual_seed(4)
    arrays = {
        "image": torch.rand(1, 3, 64, 96),
        "encoder_noise": torch.randn(1, 4, 16, 24),
        "z_T": torch.randn(1, 8, 16, 24),
        "zs_T": torch.randn(1, 9, 16, 24),
    }
    outputs: dict[str, torch.Tensor] = {}

    with torch.no_grad():
        z_T, z_seg = arrays["z_T"], arrays["zs_T"]  # noqa: N806
        condition = model.encoder.encode(arrays["image"], arrays["encoder_noise"])
        outputs["latent"] = (condition + 1) / 2
        outputs["decoded"] = model.decoder(condition)
        for t in (960, 40):
            for name, unet in (("ikr", model.ikr), ("ckg", model.ckg)):
                outputs[f"{name}_eps_t{t}"] = unet(condition, z_T, torch.tensor([float(t)]))
        streams = model.start(condition)
        streams.z_ikr = streams.z_ckg = streams.z_mkf = z_T
        streams.z_seg = z_seg
        first, last = ddim_steps(model.preset.schedule, model.preset.timesteps(2))
        streams = model.advance(streams, condition, first, torch.tensor([0.4]))
        assert streams.x0_mkf is not None
        a = first.abar_t
        outputs[f"mkf_eps_t{first.t}"] = (z_T - a**0.5 * streams.x0_mkf) / (1 - a) ** 0.5
        outputs[f"mkf_zs_t{first.t}"] = streams.z_seg
        outputs[f"mkf_seg_logits_t{first.t}"] = model.segmentation(streams.z_seg)
        streams = model.advance(streams, condition, last, torch.tensor([0.4]))
        outputs["seg_logits"] = model.segmentation(streams.z_seg)
        for name, image in (("ikr", "restored"), ("ckg", "thermal"), ("mkf", "mag_image")):
            x0 = getattr(streams, f"x0_{name}")
            outputs |= {f"x0_{name}": x0, image: model.decoder(x0)}
    np.savez(path, **({k: v.numpy() for k, v in (arrays | outputs).items()} | changes))


def test_a_converted_run_is_verified_and_can_be_loaded_again(
    written: OfficialFiles, small_paper: MagicFuse, tmp_path: Path
) -> None:
    arrays, out = tmp_path / "io.npz", tmp_path / "run"
    record(small_paper, arrays)
    options = ("--verify", arrays, "--ikr-heads", "2", "--ckg-heads", "2", "--checkpoint")
    code, output = convert(written, out, *options)
    assert code == 0 and "mkf_seg_logits_t500" in output and "1e-04" in output, output
    again = MagicFuse(load_preset(str(out / "preset.yaml")))
    again.load_state_dict(torch.load(out / "ckg" / "last.pt", weights_only=True)["ema"])
    state = again.state_dict()
    assert all(torch.equal(state[k], v) for k, v in small_paper.state_dict().items())


@pytest.mark.parametrize("heads", [2, 4])
def test_above_a_limit_nothing_is_written(
    written: OfficialFiles, small_paper: MagicFuse, tmp_path: Path, heads: int
) -> None:
    arrays, out = tmp_path / "io.npz", tmp_path / "run"
    wrong = {"latent": np.full((1, 8, 16, 24), np.nan, np.float32)} if heads == 2 else {}
    record(small_paper, arrays, **wrong)
    options = ("--verify", arrays, "--ikr-heads", heads, "--ckg-heads", "2")
    code, output = convert(written, out, *options)
    assert code == 1
    assert f"first {'latent' if heads == 2 else 'ikr_eps_t960'}" in output
    assert not out.exists()


def test_arrays_that_are_missing_are_named(
    written: OfficialFiles, tmp_path: Path, small_paper: MagicFuse
) -> None:
    np.savez(tmp_path / "io.npz", image=np.zeros((1, 3, 64, 96), np.float32))
    (tmp_path / "text.npz").write_text("no arrays")
    for name, message in (
        ("io.npz", "lacks the array 'encoder_noise'"),
        ("text.npz", "is not an .npz file of arrays"),
        ("none.npz", "is not an .npz file of arrays"),
    ):
        options = ("--verify", tmp_path / name, "--ikr-heads", "2", "--ckg-heads", "2")
        code, output = convert(written, tmp_path / "x", *options)
        assert code == 2 and message in output, name
