#!/usr/bin/env python3
"""Python's tritonclient against a service; scripts/test-clients.sh runs it.

    test-clients.py models DIRECTORY    write the models that the checks need
    test-clients.py check HOST:PORT     run the checks

The client's API: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/_reference/tritonclient/tritonclient.http.html
"""
import asyncio
import os
import sys

import numpy as np


def write_models(directory):
    """simple adds and subtracts as Triton's example of that name, strings returns what it is given."""
    from onnx import TensorProto, helper, save

    def tensors(names, kind, shape):
        return [helper.make_tensor_value_info(name, kind, shape) for name in names]

    graphs = [
        helper.make_graph(
            [
                helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
                helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
            ],
            "simple",
            tensors(["INPUT0", "INPUT1"], TensorProto.INT32, [1, 16]),
            tensors(["OUTPUT0", "OUTPUT1"], TensorProto.INT32, [1, 16]),
        ),
        helper.make_graph(
            [helper.make_node("Identity", ["INPUT"], ["OUTPUT"])],
            "strings",
            tensors(["INPUT"], TensorProto.STRING, ["n"]),
            tensors(["OUTPUT"], TensorProto.STRING, ["n"]),
        ),
    ]
    for graph in graphs:
        folder = os.path.join(directory, graph.name, "1")
        os.makedirs(folder)
        # Old enough for the runtime, however new onnx is.
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
        save(model, os.path.join(folder, "model.onnx"))


FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.ones((1, 16), dtype=np.int32)


def simple_inputs(http, binary):
    """The two inputs; binary says for each whether it is sent so."""
    inputs = []
    for name, value, as_binary in zip(("INPUT0", "INPUT1"), (FIRST, SECOND), binary):
        inputs.append(http.InferInput(name, list(value.shape), "INT32"))
        inputs[-1].set_data_from_numpy(value, binary_data=as_binary)
    return inputs


def check_simple(result):
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), FIRST + SECOND)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), FIRST - SECOND)


def digits_input(http):
    """Samples whose answer is large enough to be compressed."""
    pixels = np.random.default_rng(1).integers(0, 17, (300, 64)).astype(np.float32)
    one = http.InferInput("pixels", list(pixels.shape), "FP32")
    one.set_data_from_numpy(pixels)
    return [one]


def check_describes(http, client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("simple", query_params={"test_1": 1, "test_2": 2})
    assert metadata["platform"] == "onnxruntime_onnx" and metadata["versions"] == ["1"], metadata
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16]}, metadata
    config = client.get_model_config("simple")
    assert config["name"] == "simple" and "max_batch_size" in config, config
    assert [one["name"] for one in config["output"]] == ["OUTPUT0", "OUTPUT1"], config
    index = client.get_model_repository_index()
    assert {one["name"]: one["state"] for one in index} == dict.fromkeys(("digits", "simple", "strings"), "READY"), index


def check_infer(http, client):
    for binary in ((False, False), (False, True), (True, False), (True, True)):
        check_simple(client.infer("simple", simple_inputs(http, binary)))
        for wanted in ((False, False), (False, True), (True, False), (True, True)):
            outputs = [
                http.InferRequestedOutput(name, binary_data=one)
                for name, one in zip(("OUTPUT0", "OUTPUT1"), wanted)
            ]
            result = client.infer(
                "simple",
                simple_inputs(http, binary),
                model_version="1",
                outputs=outputs,
                request_id="7",
                query_params={"test_1": 1, "test_2": 2},
            )
            assert result.get_response()["id"] == "7", result.get_response()
            check_simple(result)


def check_strings(http, client):
    texts = [b"", b"preforkd", "Größe".encode()]
    for values, binary in ((texts, True), (texts, False), (texts + [b"\x00\xff"], True)):
        one = http.InferInput("INPUT", [len(values)], "BYTES")
        one.set_data_from_numpy(np.array(values, dtype=np.object_), binary_data=binary)
        result = client.infer("strings", [one], outputs=[http.InferRequestedOutput("OUTPUT", binary_data=binary)])
        got = [text if isinstance(text, bytes) else text.encode() for text in result.as_numpy("OUTPUT")]
        assert got == values, got


def check_compression(http, client):
    plain = client.infer("digits", digits_input(http)).as_numpy("probabilities")
    assert plain.shape == (300, 10)
    for sent in (None, "gzip", "deflate"):
        for wanted in (None, "gzip", "deflate"):
            result = client.infer(
                "digits",
                digits_input(http),
                request_compression_algorithm=sent,
                response_compression_algorithm=wanted,
            )
            np.testing.assert_array_equal(result.as_numpy("probabilities"), plain)


def check_async(http, client):
    requests = [client.async_infer("simple", simple_inputs(http, (True, True))) for _ in range(20)]
    for request in requests:
        check_simple(request.get_result())


def check_errors(http, client):
    from tritonclient.utils import InferenceServerException

    def refused(words, call, *args):
        try:
            call(*args)
        except InferenceServerException as e:
            assert words in e.message(), e
        else:
            raise AssertionError(f"{call.__name__}{args} is not refused")

    inputs = simple_inputs(http, (True, True))
    refused("Request for unknown model", client.infer, "none", inputs)
    refused("Request for unknown model", client.infer, "simple", inputs, "9")
    refused("INPUT1", client.infer, "simple", inputs[:1])
    refused("model control", client.load_model, "simple")
    refused("model control", client.unload_model, "simple")


def check_statistics(http, client):
    def count():
        (one,) = client.get_inference_statistics("simple")["model_stats"]
        assert one["inference_stats"]["success"]["count"] == one["execution_count"], one
        return one["inference_count"]

    before = count()
    for _ in range(5):
        client.infer("simple", simple_inputs(http, (True, True)))
    assert count() == before + 5
    names = {one["name"] for one in client.get_inference_statistics()["model_stats"]}
    assert names == {"digits", "simple", "strings"}, names


async def check_aio(address):
    import tritonclient.http.aio as http

    async with http.InferenceServerClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert (await client.get_model_metadata("simple"))["name"] == "simple"
        calls = [client.infer("simple", simple_inputs(http, (n % 2 == 0, True))) for n in range(20)]
        for result in await asyncio.gather(*calls):
            check_simple(result)
        # This client says in every request that it takes compressed answers.
        for sent in (None, "gzip", "deflate"):
            result = await client.infer("digits", digits_input(http), request_compression_algorithm=sent)
            assert result.as_numpy("probabilities").shape == (300, 10)


def check(address):
    import tritonclient.http as http

    with http.InferenceServerClient(address, concurrency=4) as client:
        for one in (
            check_describes,
            check_infer,
            check_strings,
            check_compression,
            check_async,
            check_errors,
            check_statistics,
        ):
            one(http, client)
            print("ok", one.__name__)
    asyncio.run(check_aio(address))
    print("ok", check_aio.__name__)


def main():
    match sys.argv[1:]:
        case ["models", directory]:
            write_models(directory)
        case ["check", address]:
            check(address)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
