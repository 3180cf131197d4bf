"""The public names can be imported, and PLSR does not import torch."""

import subprocess
import sys

import pytest

import tamis
import tamis.models


@pytest.mark.parametrize("module", [tamis, tamis.models], ids=lambda module: module.__name__)
def test_every_exported_name_can_be_imported(module: object) -> None:
    for name in module.__all__:  # type: ignore[attr-defined]
        assert getattr(module, name).__name__ in (name, "read_table")
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        module.missing  # type: ignore[attr-defined]  # noqa: B018


def test_plsr_imports_no_torch() -> None:
    probe = "import sys; from tamis.models import PLSR, LocalPLS, Pipeline, CommitteeRegressor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "lightly", "openvino"}
