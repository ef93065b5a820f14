#!/usr/bin/python3
"""Trains the four models of models/ and writes the test data of testdata/digits/.

Debian 12: apt-get install python3-sklearn python3-onnx, then scripts/make-models.py.
(scikit-learn 1.2.1, onnx 1.12, numpy 1.24; ONNX Runtime is not needed.)

The data is scikit-learn's digits: 1797 images of 8x8 pixels, values 0 to 16. 360 of
them are held out. Every model is scikit-learn's; the graph that computes the same is
written node by node with onnx.helper, then read back and evaluated here in float32
on the held-out samples, and must agree with scikit-learn before anything is written.

The same versions on the same machine write the same bytes. Another processor may
train slightly different weights: numpy adds in another order there.
"""

import os

# One thread, or the order of additions and so the weights vary from run to run.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

ROOT = pathlib.Path(__file__).resolve().parent.parent
HELD_OUT = 360
SEED = 7
SCALE = 16.0  # the largest pixel value
# Labels must not hang on the last bit: the two best probabilities of every held-out
# sample differ by more than float32 arithmetic can change.
MARGIN = 1e-4
TOLERANCE = 1e-5
OPSETS = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
IR_VERSION = 7  # the one that belongs to opset 13


# Graphs.


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name)


def make_model(name, nodes, initializers=()):
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])
    # onnx 1.12 knows no result types of ai.onnx.ml's operators: the checker needs this one.
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])
    inner = [scores] if any("scores" in n.output for n in nodes) else []
    graph = helper.make_graph(
        nodes, name, [pixels], [label, probabilities], list(initializers), value_info=inner
    )
    model = helper.make_model(
        graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="preforkd"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def softmax_and_argmax(scores):
    return [
        helper.make_node("Softmax", [scores], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]


def dense(mlp, source):
    """The layers of an MLPClassifier with ReLU, from the tensor source to the scores."""
    nodes, initializers = [], []
    for i, (w, b) in enumerate(zip(mlp.coefs_, mlp.intercepts_)):
        initializers += [constant(f"w{i}", w), constant(f"b{i}", b)]
        nodes.append(helper.make_node("Gemm", [source, f"w{i}", f"b{i}"], [f"dense{i}"]))
        source = f"dense{i}"
        if i + 1 < len(mlp.coefs_):
            nodes.append(helper.make_node("Relu", [source], [f"relu{i}"]))
            source = f"relu{i}"
    return nodes + softmax_and_argmax(source), initializers


def floor32(threshold):
    """The largest float32 <= threshold: x <= it exactly when x <= threshold, for any
    float32 x. Rounding to nearest may go up, past an x that lies between."""
    f = np.float32(threshold)
    return f if float(f) <= threshold else np.nextafter(f, np.float32(-np.inf))


def tree_nodes(trees):
    """The nodes_* attributes that both tree operators share, and (tree, leaf) pairs."""
    a = {
        f"nodes_{key}": []
        for key in "treeids nodeids featureids values modes truenodeids falsenodeids".split()
    }
    leaves = []
    for t, tree in enumerate(trees):
        for n in range(tree.node_count):
            leaf = tree.children_left[n] < 0
            if leaf:
                leaves.append((t, n))
            a["nodes_treeids"].append(t)
            a["nodes_nodeids"].append(n)
            a["nodes_featureids"].append(0 if leaf else int(tree.feature[n]))
            a["nodes_values"].append(0.0 if leaf else float(floor32(tree.threshold[n])))
            a["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
            a["nodes_truenodeids"].append(0 if leaf else int(tree.children_left[n]))
            a["nodes_falsenodeids"].append(0 if leaf else int(tree.children_right[n]))
    return a, leaves


# Models. Each returns a graph and scikit-learn's probabilities for the held-out samples.


def digits(train, truth, test):
    """Multi-layer perceptron, 64-48-10, ReLU"""
    mlp = MLPClassifier((48,), random_state=SEED, max_iter=2000, alpha=1e-3).fit(train / SCALE, truth)
    nodes, initializers = dense(mlp, "scaled")
    nodes.insert(0, helper.make_node("Div", ["pixels", "scale"], ["scaled"]))
    initializers.append(constant("scale", SCALE))
    return make_model("digits", nodes, initializers), mlp.predict_proba(test / SCALE)


def windows(images):
    """All 3x3 windows of images with a border of zeros: [n, 8, 8, 3, 3]."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


def convolve(pixels, filters, bias):
    """Convolution, ReLU and 2x2 maxima, as features [n, filters * 16]."""
    images = (pixels / SCALE).reshape(-1, 8, 8)
    maps = np.einsum("nyxij,fij->nfyx", windows(images), filters) + bias[:, None, None]
    maps = np.maximum(maps, 0).reshape(-1, len(filters), 4, 2, 4, 2).max(axis=(3, 5))
    return maps.reshape(len(pixels), -1)


def digits_cnn(train, truth, test):
    """Convolutional network: 16 filters of 3x3 learned by k-means, pooling, 256-32-10"""
    # Filters are centres of the strokes that occur, found without labels (Coates and
    # Ng, "Learning Feature Representations with K-means"); scikit-learn trains the rest.
    strokes = windows((train / SCALE).reshape(-1, 8, 8)).reshape(-1, 9)
    strokes = strokes - strokes.mean(axis=1, keepdims=True)
    length = np.linalg.norm(strokes, axis=1, keepdims=True)
    strokes = (strokes / np.maximum(length, 1e-9))[length[:, 0] > 0.5]
    centres = KMeans(16, n_init=1, random_state=SEED).fit(strokes).cluster_centers_
    filters, bias = np.float32(centres.reshape(16, 3, 3)), np.full(16, -0.1, np.float32)

    mlp = MLPClassifier((32,), random_state=SEED, max_iter=2000, alpha=1e-2)
    mlp.fit(convolve(train, filters, bias), truth)
    nodes, initializers = dense(mlp, "features")
    nodes = [
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "image"], ["images"]),
        helper.make_node("Conv", ["images", "filters", "bias"], ["maps"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["maps"], ["strokes"]),
        helper.make_node("MaxPool", ["strokes"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ] + nodes
    initializers += [
        constant("scale", SCALE),
        constant("image", [-1, 1, 8, 8], np.int64),
        constant("filters", filters[:, None]),
        constant("bias", bias),
    ]
    return make_model("digits-cnn", nodes, initializers), mlp.predict_proba(convolve(test, filters, bias))


def digits_forest(train, truth, test):
    """Random forest of 40 trees"""
    forest = RandomForestClassifier(40, max_leaf_nodes=80, random_state=SEED).fit(train, truth)
    trees = [e.tree_ for e in forest.estimators_]
    a, leaves = tree_nodes(trees)
    a |= {"class_treeids": [], "class_nodeids": [], "class_ids": [], "class_weights": []}
    for t, n in leaves:
        share = trees[t].value[n, 0] / trees[t].value[n, 0].sum() / len(trees)
        for c in np.flatnonzero(share):
            a["class_treeids"].append(t)
            a["class_nodeids"].append(n)
            a["class_ids"].append(int(c))
            a["class_weights"].append(float(share[c]))
    node = helper.make_node(
        "TreeEnsembleClassifier", ["pixels"], ["label", "probabilities"], domain="ai.onnx.ml",
        classlabels_int64s=list(range(10)), post_transform="NONE", **a,
    )
    return make_model("digits-forest", [node]), forest.predict_proba(test)


def digits_gbdt(train, truth, test):
    """Gradient boosting, 40 rounds of 10 trees of depth 3"""
    gbdt = GradientBoostingClassifier(n_estimators=40, learning_rate=0.25, subsample=0.8, random_state=SEED)
    gbdt.fit(train, truth)
    trees = [e.tree_ for e in gbdt.estimators_.flat]  # round by round, a tree a class
    a, leaves = tree_nodes(trees)
    a["target_treeids"] = [t for t, _ in leaves]
    a["target_nodeids"] = [n for _, n in leaves]
    a["target_ids"] = [t % 10 for t, _ in leaves]
    a["target_weights"] = [float(gbdt.learning_rate * trees[t].value[n, 0, 0]) for t, n in leaves]
    prior = np.log(gbdt.init_.class_prior_)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["pixels"], ["scores"], domain="ai.onnx.ml",
        n_targets=10, base_values=[float(p) for p in prior], post_transform="NONE", **a,
    )
    return make_model("digits-gbdt", [node] + softmax_and_argmax("scores")), gbdt.predict_proba(test)


# Evaluation of a written model in float32, only the operators used above.


def ensemble(a, x, kind):
    """Sums of the weights of the leaves that each row of x reaches."""
    node = {}
    fields = ["treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"]
    for t, n, *rest in zip(*(a["nodes_" + f] for f in fields)):
        node[t, n] = rest
    weight = {}
    for t, n, c, w in zip(*(a[f"{kind}_{f}"] for f in ["treeids", "nodeids", "ids", "weights"])):
        weight.setdefault((t, n), []).append((c, np.float32(w)))
    out = np.tile(np.float32(a.get("base_values", [0] * 10)), (len(x), 1))
    for row, sums in zip(x, out):
        for t in range(max(a["nodes_treeids"]) + 1):
            n = 0
            while node[t, n][2] == b"BRANCH_LEQ":
                feature, value, _, yes, no = node[t, n]
                n = yes if row[feature] <= np.float32(value) else no
            for c, w in weight[t, n]:
                sums[c] += w
    return out


def convolution(x, w, b):
    return np.einsum("nyxij,fij->nfyx", windows(x[:, 0]), w[:, 0]) + b[:, None, None]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def classifier(a, x):
    scores = ensemble(a, x, "class")
    return scores.argmax(axis=1), scores


OPERATORS = {
    "Div": lambda a, x, y: x / y,
    "Reshape": lambda a, x, s: x.reshape(s),
    "Conv": lambda a, x, w, b: convolution(x, w, b),
    "Relu": lambda a, x: np.maximum(x, np.float32(0)),
    "MaxPool": lambda a, x: x.reshape(len(x), x.shape[1], 4, 2, 4, 2).max(axis=(3, 5)),
    "Flatten": lambda a, x: x.reshape(len(x), -1),
    "Gemm": lambda a, x, w, b: x @ w + b,
    "Softmax": lambda a, x: softmax(x),
    "ArgMax": lambda a, x: x.argmax(axis=1),
    "TreeEnsembleRegressor": lambda a, x: ensemble(a, x, "target"),
    "TreeEnsembleClassifier": classifier,
}


def evaluate(data, pixels):
    graph = onnx.load_model_from_string(data).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    values["pixels"] = np.float32(pixels)
    for node in graph.node:
        a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        result = OPERATORS[node.op_type](a, *(values[name] for name in node.input))
        if len(node.output) == 1:
            result = (result,)
        values.update(zip(node.output, result))
    return values["label"], values["probabilities"]


def check(name, data, test, expected):
    """Stops the script when the written model and scikit-learn disagree."""
    label, probabilities = evaluate(data, test)
    if probabilities.dtype != np.float32:
        raise SystemExit(f"{name}: evaluated in {probabilities.dtype}, must be float32")
    deviation = np.abs(probabilities - expected).max()
    best = np.sort(expected, axis=1)
    margin = (best[:, -1] - best[:, -2]).min()
    if not (label == expected.argmax(axis=1)).all():
        raise SystemExit(f"{name}: the graph gives other labels than scikit-learn")
    if deviation > TOLERANCE or margin < MARGIN:
        raise SystemExit(f"{name}: deviation {deviation:.2g}, least margin {margin:.2g}")
    return deviation, margin


# Files.


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def write_model(name, description, data, expected, sample):
    write(ROOT / "models" / name / "1" / "model.onnx", data)
    write(
        ROOT / "models" / name / "config.yaml",
        f"description: {description}\npredict:\n  sample: [{', '.join(str(int(v)) for v in sample)}]\n",
    )
    rows = []
    for p in np.float32(expected):
        # The shortest text that reads back as the same float32.
        rows.append(",".join([str(p.argmax())] + [np.format_float_positional(v, trim="-") for v in p]))
    write(ROOT / "testdata" / "digits" / f"{name}.csv", "\n".join(rows) + "\n")


def main():
    data = load_digits()
    train, test, truth, held = train_test_split(
        data.data, data.target, test_size=HELD_OUT, random_state=SEED, stratify=data.target
    )
    rows = [",".join(str(int(v)) for v in [*pixels, digit]) for pixels, digit in zip(test, held)]
    made = []
    for build in (digits, digits_cnn, digits_forest, digits_gbdt):
        name = build.__name__.replace("_", "-")
        model, expected = build(train, truth, test)
        encoded = model.SerializeToString(deterministic=True)
        deviation, margin = check(name, encoded, test, expected)
        accuracy = (expected.argmax(axis=1) == held).mean()
        print(
            f"{name}: {len(encoded)} bytes, accuracy {accuracy:.4f},"
            f" deviation {deviation:.1g}, least margin {margin:.2g}"
        )
        if accuracy < 0.95:
            raise SystemExit(f"{name}: accuracy {accuracy:.4f}")
        description = f'"{build.__doc__}; {accuracy * 100:.1f} % of {HELD_OUT} held-out samples right"'
        made.append((name, description, encoded, expected))
    # All or nothing: nothing is written before every model has been checked.
    write(ROOT / "testdata" / "digits" / "samples.csv", "\n".join(rows) + "\n")
    clearest = np.min([m[3][np.arange(HELD_OUT), held] for m in made], axis=0).argmax()
    for m in made:
        write_model(*m, test[clearest])


if __name__ == "__main__":
    main()
