"""Writes the weights of a digits model as numpy arrays: weights.py MODEL.onnx OUT.npz

The graph is Div by scale, Gemm, Relu, Gemm, Softmax, ArgMax; anything else is an error.
The division is folded into the first matrix: the result is the same but for rounding,
and the peer saves a pass.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

model = onnx.load(sys.argv[1])
operators = [node.op_type for node in model.graph.node]
if operators != ["Div", "Gemm", "Relu", "Gemm", "Softmax", "ArgMax"]:
    sys.exit(f"{sys.argv[1]}: the operators are {operators}")
w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
np.savez(sys.argv[2], w0=w["w0"] / w["scale"], b0=w["b0"], w1=w["w1"], b1=w["b1"])
