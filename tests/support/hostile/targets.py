"""Every decoder and file reader: its seeds, its mutator and its runner."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from tamis import BadBundle, BadFile, BadMessage, BadSettings, NoModel, StoreUnusable
from tamis.streamer.messages.record import ARROW, JSON, RAW

from .config import read_settings, settings_seeds, strange_settings
from .examination import Target
from .files import (
    asd_seeds,
    column_seeds,
    csv_seeds,
    envi_seeds,
    in_file,
    join_laboratory,
    laboratory_seeds,
    numpy_seeds,
    parquet_seeds,
    reading,
    spectrometer_seeds,
    strange_csv,
    strange_envi,
    strange_npy,
    strange_npz,
    strange_parquet,
    strange_text,
)
from .messages import (
    IN_STREAM,
    IN_TEXT,
    arrow_seeds,
    by_content,
    decode_frame,
    frame_seeds,
    in_message,
    label_seeds,
    prediction_seeds,
    read_labels,
    read_predictions,
)
from .mutators import chain, mutated_bytes
from .weights import (
    bundle_seeds,
    drift_seeds,
    encoder_seeds,
    in_bundle,
    read_bundle,
    read_drift,
    read_encoder,
    strange_about,
    strange_tensors,
)

TARGETS = {
    "arrow frame": Target(arrow_seeds, IN_STREAM, partial(decode_frame, ARROW), (BadMessage,), 6),
    "raw frame": Target(
        partial(frame_seeds, RAW), in_message(chain(mutated_bytes)), partial(decode_frame, RAW), (BadMessage,), 12
    ),
    "json frame": Target(partial(frame_seeds, JSON), IN_TEXT, partial(decode_frame, JSON), (BadMessage,), 6),
    "labels": Target(label_seeds, by_content, read_labels, (BadMessage,), 6),
    "predictions": Target(prediction_seeds, by_content, read_predictions, (ValueError,), 6),
    "parquet file": Target(
        parquet_seeds, in_file(*[mutated_bytes] * 3, strange_parquet), reading(".parquet"), (BadFile,)
    ),
    "csv file": Target(
        csv_seeds, in_file(strange_csv, strange_csv, mutated_bytes), reading(".csv", ".tsv"), (BadFile,)
    ),
    "numpy file": Target(
        numpy_seeds, in_file(strange_npz, strange_npy, mutated_bytes), reading(".npy", ".npz"), (BadFile,)
    ),
    "column file": Target(
        column_seeds,
        in_file(strange_text, strange_text, mutated_bytes),
        reading(".dpt", ".txt", ".asc", ".xy", ".csv"),
        (BadFile,),
    ),
    "laboratory file": Target(
        laboratory_seeds, in_file(strange_text, strange_text, mutated_bytes), join_laboratory, (BadFile,)
    ),
    "envi header": Target(envi_seeds, in_file(strange_envi, strange_envi, mutated_bytes), reading(".hdr"), (BadFile,)),
    "asd file": Target(asd_seeds, in_file(mutated_bytes), reading(".asd"), (BadFile,)),
    "jcamp file": Target(partial(spectrometer_seeds, ".jdx"), in_file(mutated_bytes), reading(".jdx"), (BadFile,)),
    **{
        f"{name} file": Target(partial(spectrometer_seeds, suffix), in_file(mutated_bytes), reading(suffix), (BadFile,))
        for name, suffix, library in (
            ("opus", ".0", "brukeropus"),
            ("spc", ".spc", "spc_io"),
        )
        if find_spec(library)
    },
    "settings": Target(
        settings_seeds, chain(strange_settings, strange_settings, mutated_bytes), read_settings, (BadSettings,)
    ),
    "bundle": Target(bundle_seeds, chain(in_bundle), partial(read_bundle, False), (BadBundle, NoModel, StoreUnusable)),
    "served bundle": Target(
        bundle_seeds, chain(in_bundle), partial(read_bundle, True), (BadBundle, NoModel, StoreUnusable)
    ),
    "drift reference": Target(drift_seeds, chain(strange_tensors, mutated_bytes), read_drift, ()),
    "encoder file": Target(
        encoder_seeds, chain(strange_tensors, strange_about, mutated_bytes), read_encoder, (BadFile,)
    ),
}
