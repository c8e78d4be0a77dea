from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import tensorfile

ARRAYS = {
    "wide": np.arange(6, dtype=np.float32).reshape(2, 3),
    "brain": np.arange(5, dtype=np.float32).astype(jnp.bfloat16),
    "scalar": np.array(2.5, np.float16),
}


def _layout(arrays):
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def test_the_library_reads_what_is_written_and_the_other_way_round(tmp_path):
    tensorfile.write(tmp_path / "ours", _layout(ARRAYS), ARRAYS.values())
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs")
    for found in (
        safetensors.numpy.load_file(tmp_path / "ours"),
        tensorfile.read(tmp_path / "ours"),
        tensorfile.read(tmp_path / "theirs"),
    ):
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_tensors_are_read_only_views_of_the_file_while_they_are_in_use(tmp_path):
    path = tmp_path / "x.safetensors"
    tensorfile.write(path, _layout(ARRAYS), ARRAYS.values())
    found = tensorfile.read(path)["wide"]
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert not found.flags.owndata

    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    if Path("/proc/self/maps").exists():
        assert mapped()
        del found
        assert not mapped()


def test_nothing_can_be_read_too(tmp_path):
    nothing = {"empty": np.zeros((0, 3), np.float32)}
    tensorfile.write(tmp_path / "x", _layout(nothing), nothing.values())
    assert tensorfile.read(tmp_path / "x")["empty"].shape == (0, 3)


def test_arrays_must_come_as_laid_out(tmp_path):
    with pytest.raises(ValueError, match="was laid out"):
        tensorfile.write(tmp_path / "x", _layout(ARRAYS), reversed(ARRAYS.values()))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        tensorfile.write(tmp_path / "x", _layout(ARRAYS), list(ARRAYS.values())[:2])


def _with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _one(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "ends within its header"),
        (b"abc", "ends within its header"),
        (_with_header(_one(), b"1234")[:-30], "ends within its header"),
        (_with_header(_one(), b"123"), "ends within or before tensor x"),
        (_with_header(_one(offsets=(-4, 0)), b"1234"), "ends within or before tensor x"),
        (_with_header(_one(offsets=(4, 0)), b"1234"), "ends within or before tensor x"),
        (_with_header(_one(shape=(2,)), b"1234"), r"4 bytes are not a F32 tensor x \(2,\)"),
        (_with_header(b"{'x': 1}"), "header makes no sense"),
        (_with_header(b"\xff\xfe"), "header makes no sense"),
        (_with_header([1, 2]), "header makes no sense"),
        (_with_header({"x": {"dtype": "F32"}}), "header makes no sense"),
        (_with_header(_one(shape="ab"), b"1234"), "header makes no sense"),
        (_with_header(_one(offsets=(0, "4")), b"1234"), "header makes no sense"),
        (_with_header(_one(dtype="F8_E4M3", offsets=(0, 1)), b"1"), "tensor x is of type F8_E4M3"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, content, problem):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=f"model.safetensors.*{problem}"):
        tensorfile.read(tmp_path / "model.safetensors")


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelFileError, match="absent.safetensors: cannot be read"):
        tensorfile.read(tmp_path / "absent.safetensors")
