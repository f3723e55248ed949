from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magicfuse_ros import bundle_path
from magicfuse_ros.bundle import MANIFEST, NETWORKS, Bundle
from magicfuse_ros.errors import BundleError


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    change(manifest)
    (root / MANIFEST).write_text(json.dumps(manifest))


def uncertain(lowest: float, highest: float) -> Callable[[dict[str, Any]], object]:
    return lambda m: m.update(thermal_uncertainty={"lowest": lowest, "highest": highest})


def test_loads_and_reads_back_what_was_written(tiny_bundle: Path) -> None:
    bundle = Bundle.load(str(tiny_bundle))
    assert bundle.manifest.name == "tiny"
    assert [c.name for c in bundle.manifest.classes] == ["road", "person", "sky"]
    assert all(bundle.path(name).is_file() for name in NETWORKS)
    assert [step.t for step in bundle.steps(2)] == [999, 499]


def test_bundles_from_before_z_seg_start_start_from_zeros(copied: Path) -> None:
    edit(copied, lambda m: m.pop("z_seg_start"))
    assert Bundle.load(copied).manifest.z_seg_start == "zeros"


def test_bundles_from_before_thermal_uncertainty_have_none(
    copied: Path, tiny_uncertain_bundle: Path
) -> None:
    edit(copied, lambda m: m.pop("thermal_uncertainty"))
    assert Bundle.load(copied).manifest.thermal_uncertainty is None
    found = Bundle.load(tiny_uncertain_bundle).manifest.thermal_uncertainty
    assert found is not None and (found.lowest, found.highest) == (0.01, 1.0)


def test_fingerprint_follows_the_networks_only(copied: Path) -> None:
    before = Bundle.load(copied).fingerprint
    edit(copied, lambda m: m.update(tau=0.1))
    assert Bundle.load(copied).fingerprint == before
    decoder, encoder = copied / "decoder.onnx", copied / "encoder.onnx"
    decoder.write_bytes(encoder.read_bytes())
    edit(
        copied,
        lambda m: m["networks"]["decoder"].update(sha256=m["networks"]["encoder"]["sha256"]),
    )
    assert Bundle.load(copied).fingerprint != before


def test_untrained_steps_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"steps is 3; bundle 'tiny' is trained for \[1, 2\]"):
        Bundle.load(tiny_bundle).steps(3)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none' is not a folder"):
        Bundle.load(tmp_path / "none")


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read bundle\.json: No such file"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_manifest_that_is_not_json(copied: Path, text: str) -> None:
    (copied / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_network_file(copied: Path, name: str) -> None:
    (copied / f"{name}.onnx").unlink()
    with pytest.raises(BundleError, match=rf"cannot read {name}\.onnx \({name}\): No such file"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_changed_byte(copied: Path, name: str) -> None:
    path = copied / f"{name}.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}\.onnx \({name}\) was changed or damaged"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_graphs_are_verified_like_the_others(
    tiny_int8_bundle: Path, tmp_path: Path, name: str
) -> None:
    root = Path(shutil.copytree(tiny_int8_bundle, tmp_path / "bundle"))
    path = root / f"{name}.int8.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name}\.int8\.onnx \({name}\) was changed or damaged"):
        Bundle.load(root)
    path.unlink()
    with pytest.raises(BundleError, match=rf"cannot read {name}\.int8\.onnx \({name}\): No such"):
        Bundle.load(root)


def test_int8_graphs_take_the_place_of_the_float32_ones(
    tiny_bundle: Path, tiny_int8_bundle: Path
) -> None:
    exact, bundle = Bundle.load(tiny_bundle), Bundle.load(tiny_int8_bundle)
    quantized = bundle.quantized()
    for name in NETWORKS:
        assert bundle.path(name).name == f"{name}.onnx"
        assert quantized.path(name).name == f"{name}.int8.onnx"
        assert quantized.manifest.networks[name].inputs == exact.manifest.networks[name].inputs
    assert len({b.fingerprint for b in (exact, bundle, quantized)}) == 3


def test_a_bundle_without_int8_graphs_says_how_to_make_them(tiny_bundle: Path) -> None:
    with pytest.raises(
        BundleError, match=r"has no int8 graphs; .*magicfuse-train quantize --bundle '.*/tiny'"
    ):
        Bundle.load(tiny_bundle).quantized()


def test_int8_graphs_of_some_networks_only_are_refused(
    tiny_int8_bundle: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_int8_bundle, tmp_path / "bundle"))
    edit(root, lambda m: [m["networks"][n].pop("int8") for n in NETWORKS[1:]])
    with pytest.raises(BundleError, match="only encoder of the networks have int8 graphs"):
        Bundle.load(root)


def test_truncated_file(copied: Path) -> None:
    path = copied / "mkf.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="changed or damaged"):
        Bundle.load(copied)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_format_versions(copied: Path, version: object) -> None:
    edit(copied, lambda m: m.update(format_version=version))
    with pytest.raises(BundleError, match=f"format_version is {version!r}; this release reads 1"):
        Bundle.load(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m["classes"][0].update(colour="red"), r"classes\.0\.colour: Extra inputs"),
        (lambda m: m.pop("tau"), "tau: Field required"),
        (lambda m: m["networks"].pop("mkf"), "networks lack mkf"),
        (lambda m: m["networks"].update(other=m["networks"]["mkf"]), r"networks\.other"),
        (lambda m: m["networks"]["mkf"].update(file="../mkf.onnx"), r"networks\.mkf\.file"),
        (lambda m: m.update(default_steps=5), r"default_steps is 5; trained are \[1, 2\]"),
        (lambda m: m["classes"].reverse(), "class ids must be 0, 1, 2"),
        (lambda m: m["classes"][0].update(id=255), r"classes\.0\.id"),
        (lambda m: m.update(height=63), "image size 63 is no multiple of 8"),
        (lambda m: m["step_grids"].update({"2": [999]}), "step grid 2 has 1 time steps"),
        (lambda m: m["step_grids"].update({"2": [1, 9]}), "strictly falling"),
        (lambda m: m.update(tau=1.5), "tau: "),
        (lambda m: m.update(seed=-1), "seed: "),
        (lambda m: m.update(z_seg_start="ones"), "z_seg_start: "),
        (uncertain(0.0, 0.5), r"thermal_uncertainty\.lowest: .*greater than 0"),
        (uncertain(0.1, 1.01), r"thermal_uncertainty\.highest: .*less than or equal to 1"),
        (uncertain(float("nan"), 0.5), r"thermal_uncertainty\.lowest: "),
        (uncertain(0.1, -1.0), r"thermal_uncertainty\.highest: "),
        (uncertain(0.2, 0.2), r"thermal_uncertainty: .*lowest is 0\.2; expected less than highest"),
        (lambda m: m.update(thermal_uncertainty={"lowest": 0.1}), "highest: Field required"),
    ],
)
def test_manifests_that_do_not_hold_together(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copied, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(copied)


def test_manifest_that_is_a_list(copied: Path) -> None:
    (copied / MANIFEST).write_text("[]")
    with pytest.raises(BundleError, match="format_version is None"):
        Bundle.load(copied)


@pytest.mark.parametrize("place", ["source", "ament", "prefix"])
def test_default_bundle_is_found_in_every_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    share = Path("share", "magicfuse_ros", "engines", "nano")
    folders = {
        "source": tmp_path / "source" / "engines" / "nano",
        "ament": tmp_path / "ament" / share,
        "prefix": tmp_path / "prefix" / share,
    }
    monkeypatch.setattr(
        bundle_path, "__file__", str(tmp_path / "source" / "magicfuse_ros" / "x.py")
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'ament'}")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    folders[place].mkdir(parents=True)
    with pytest.raises(BundleError, match=r"default bundle is missing; expected bundle\.json in"):
        bundle_path.default_bundle()
    (folders[place] / MANIFEST).touch()
    assert bundle_path.default_bundle() == folders[place]


def test_the_shipped_bundle_tells_its_own_scores() -> None:
    shipped = Bundle.load(Path(__file__).parents[1] / "engines" / "nano")
    scores = shipped.manifest.provenance.scores
    assert scores.get("fingerprint") == shipped.fingerprint
    card = (shipped.root / "MODEL_CARD.md").read_text()
    restored = scores["sets"]["camvid val"]["dark"]["psnr_restored_db"][0]
    assert f"{restored:.2f}" in card
