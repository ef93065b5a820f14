#!/usr/bin/python3
"""Writes models/digits-int8: the weights of models/digits-cnn as 8-bit integers.

Debian 12: apt-get install python3-onnx, then scripts/quantize-model.py. (onnx 1.12, numpy
1.24; neither training nor ONNX Runtime is needed.) The same input writes the same bytes.

Every matrix and every filter becomes an INT8 initializer and a DequantizeLinear with a
scale for each output: symmetric, so that 0 stays 0. Activations stay FLOAT. Scales of
activations that are found while the model runs (DynamicQuantizeLinear) are those of a whole
batch, so that a row's answer would depend on the rows beside it.
"""

import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
SOURCE = MODELS / "digits-cnn"
TARGET = MODELS / "digits-int8"
# The axis of a weight that its outputs are numbered by (operators of ONNX, opset 13).
OUTPUTS = {"Conv": 0, "MatMul": 1, "Gemm": 1}


def quantize(weights, axis):
    """The integers, and a scale for each index of axis."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scale = np.abs(weights).max(axis=others, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    integers = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    return integers, scale.reshape(-1)


def main():
    model = onnx.load(SOURCE / "1" / "model.onnx")
    graph = model.graph
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    nodes, initializers, replaced = [], [], set()
    for node in graph.node:
        name = node.input[1] if node.op_type in OUTPUTS else ""
        if name in weights and weights[name].ndim > 1 and not any(a.name == "transB" for a in node.attribute):
            axis = OUTPUTS[node.op_type]
            integers, scale = quantize(weights[name], axis)
            parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
            values = [integers, scale, np.zeros(len(scale), np.int8)]
            initializers += [numpy_helper.from_array(v, p) for p, v in zip(parts, values)]
            nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}_float"], axis=axis))
            node.input[1] = f"{name}_float"
            replaced.add(name)
        nodes.append(node)
    if not replaced:
        raise SystemExit(f"{SOURCE}: no weights to quantize")
    initializers += [i for i in graph.initializer if i.name not in replaced]
    quantized = helper.make_model(
        helper.make_graph(nodes, "digits-int8", list(graph.input), list(graph.output), initializers),
        opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name="preforkd",
    )
    onnx.checker.check_model(quantized, full_check=True)
    (TARGET / "1").mkdir(parents=True, exist_ok=True)
    encoded = quantized.SerializeToString(deterministic=True)
    (TARGET / "1" / "model.onnx").write_bytes(encoded)
    lines = (SOURCE / "config.yaml").read_text().splitlines()
    lines[0] = 'description: "digits-cnn with weights of 8 bits: 10 KB instead of 36"'
    (TARGET / "config.yaml").write_text("\n".join(lines) + "\n")
    print(f"digits-int8: {len(encoded)} bytes, {', '.join(sorted(replaced))} quantized")


if __name__ == "__main__":
    main()
