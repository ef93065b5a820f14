"""Writes the weights of the model digits-cnn as numpy arrays: weights.py MODEL.onnx OUT.npz

The division of the pixels is folded into the filters, and the order in which the peer has the
maps into the first matrix: the result is the same but for rounding, and the peer saves two passes.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

model = onnx.load(sys.argv[1])
operators = [node.op_type for node in model.graph.node]
if operators != ["Div", "Reshape", "Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Relu", "Gemm", "Softmax", "ArgMax"]:
    sys.exit(f"{sys.argv[1]}: the operators are {operators}")
w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
np.savez(
    sys.argv[2],
    filters=(w["filters"] / w["scale"]).reshape(16, 9).T, bias=w["bias"],
    w0=w["w0"].reshape(16, 4, 4, 32).transpose(1, 2, 0, 3).reshape(256, 32), b0=w["b0"], w1=w["w1"], b1=w["b1"],
)
