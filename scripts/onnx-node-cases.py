#!/usr/bin/python3
"""Writes the ONNX operator tests of Debian's python3-onnx into a directory.

    /usr/bin/python3 scripts/onnx-node-cases.py DIRECTORY

DIRECTORY/models is a model repository with a model of one operator for each case.
DIRECTORY/cases.json is a list of the cases:

    {"name", "rtol", "atol", "random", "sets": [{"inputs": [tensor...], "outputs": [tensor...]}...]}

random: the values of its outputs are random numbers, and only datatypes and shapes can be compared.
A tensor is {"name", "datatype", "shape", "data"}: datatype is the protocol's, data the elements
in base64, little endian; of BYTES a list with each string in base64. A value that is no tensor,
or of a type that the protocol has not, has "kind" instead, which says what it is.

The cases are those of onnx.backend.test.case.node (python3-onnx, onnx 1.12). They seed their
random numbers, so that every run writes the same.
"""
import base64
import json
import os
import shutil
import sys
import warnings

import numpy as np

# Removed in NumPy 1.24, https://numpy.org/doc/stable/release/1.24.0-notes.html; onnx 1.12 uses them.
for alias, kind in (("float", float), ("int", int), ("bool", bool), ("object", object)):
    if alias not in np.__dict__:
        setattr(np, alias, kind)

import onnx  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}


def base64_of(data):
    return base64.b64encode(data).decode()


def bytes_of(text):
    return text if isinstance(text, bytes) else str(text).encode()


def bfloat16(proto):
    """The elements of a BFLOAT16 tensor: numpy has no such type."""
    if proto.raw_data:
        return proto.raw_data
    # onnx.proto: int32_data has a bfloat16 in the lower half of each number.
    return np.array(proto.int32_data, dtype="<u4").astype("<u2").tobytes()


def tensor(info, value):
    """value as cases.json has it; info is the graph's ValueInfoProto of it."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"name": info.name, "kind": kind}
    element = info.type.tensor_type.elem_type
    if element not in DATATYPES:
        return {"name": info.name, "kind": TensorProto.DataType.Name(element)}
    out = {"name": info.name, "datatype": DATATYPES[element]}
    if isinstance(value, TensorProto):
        out["shape"] = list(value.dims)
        if value.data_type == TensorProto.BFLOAT16:
            return {**out, "data": base64_of(bfloat16(value))}
        value = numpy_helper.to_array(value)
    value = np.asarray(value)
    out["shape"] = list(value.shape)
    if element == TensorProto.STRING:
        return {**out, "data": [base64_of(bytes_of(text)) for text in value.flatten()]}
    return {**out, "data": base64_of(value.astype(value.dtype.newbyteorder("<")).tobytes())}


def tensors(infos, values):
    return [tensor(info, value) for info, value in zip(infos, values, strict=True)]


def draws(case):
    """Whether the operator draws numbers, in Dropout only when it trains."""
    for node in case.model.graph.node:
        if node.op_type == "Bernoulli" or node.op_type.startswith("Random"):
            return True
        if node.op_type == "Dropout" and len(node.input) == 3:
            _, ratio, training = case.data_sets[0][0]
            return bool(training and ratio != 0)
    return False


def name_of(case, taken):
    """The name of case, with a number where another has it."""
    name, n = case.name, 1
    while name in taken:
        n += 1
        name = f"{case.name}_{n}"
    taken.add(name)
    return name


def write(case, name, models):
    """Writes the model of case and returns what cases.json says of it."""
    folder = os.path.join(models, name, "1")
    os.makedirs(folder)
    onnx.save(case.model, os.path.join(folder, "model.onnx"))
    graph = case.model.graph
    sets = [{"inputs": tensors(graph.input, i), "outputs": tensors(graph.output, o)} for i, o in case.data_sets]
    return {"name": name, "rtol": case.rtol, "atol": case.atol, "random": draws(case), "sets": sets}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.simplefilter("ignore")  # of numpy, about what the cases do on purpose
    directory = sys.argv[1]
    models = os.path.join(directory, "models")
    shutil.rmtree(models, ignore_errors=True)
    taken = set()
    cases = [write(case, name_of(case, taken), models) for case in collect_testcases(None)]
    with open(os.path.join(directory, "cases.json"), "w") as file:
        json.dump(cases, file, allow_nan=False)


if __name__ == "__main__":
    main()
