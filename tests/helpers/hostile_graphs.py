"""Hostile ``.onnx`` files: broken bytes, altered graphs, false descriptions, impossible forests, bombs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from speckv.export.forest import Forest
from speckv.export.graph import assemble
from speckv.export.heads import Head

Case = tuple[str, bytes]


def broken(good: bytes) -> Iterator[Case]:
    """Cut short, and with one byte changed outside of what may honestly have any value."""
    for part in range(1, 24):
        yield f"cut-{part:02d}.onnx", good[: len(good) * part // 24]
    yield "twice.onnx", good + good
    yield "unknown-field.onnx", good + b"\xf8\x07\x01"
    yield "junk-after.onnx", good + b"junk"
    yield "junk-before.onnx", b"junk" + good
    yield "text.onnx", b"not a model at all\n" * 50
    yield "zeros.onnx", bytes(5000)
    yield "ones.onnx", b"\xff" * 5000
    yield "html.onnx", b"<!doctype html><title>Sign in</title>" * 20
    yield "lfs-pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4567\n"
    fixed = np.flatnonzero(~free(good))
    generator = np.random.default_rng(5)
    for number, at in enumerate(generator.choice(fixed, 60, replace=False)):
        changed = bytearray(good)
        changed[at] ^= int(generator.integers(1, 256))
        yield f"byte-{number:02d}.onnx", bytes(changed)


def free(good: bytes) -> np.ndarray:
    """(len(good),) True for the bytes of a network's numbers and of its metadata: other values may be honest too."""
    model = onnx.ModelProto.FromString(good)
    spans = [tensor.raw_data for tensor in model.graph.initializer if tensor.raw_data]
    spans.append(model.metadata_props[0].value.encode())
    for node in model.graph.node:
        for attribute in node.attribute:
            spans += [b"\x3d" + np.float32(value).tobytes() for value in attribute.floats]
    mask = np.zeros(len(good), dtype=bool)
    for span in spans:
        at = good.find(span)
        while at >= 0:
            mask[at : at + len(span)] = True
            at = good.find(span, at + 1)
    return mask


def edit(good: bytes, change: Callable[[onnx.ModelProto], Any]) -> bytes:
    model = onnx.ModelProto.FromString(good)
    change(model)
    return bytes(model.SerializeToString())


def altered(good: bytes) -> Iterator[Case]:
    """Graphs with something added, removed or exchanged."""
    changes: dict[str, Callable[[onnx.ModelProto], Any]] = {}
    changes |= _tensors() | _numbers() | _operators() | _structure()
    for name, change in changes.items():
        yield f"{name}.onnx", edit(good, change)


def _weights(model: onnx.ModelProto, number: int, head: str = "acceptance_rate") -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == f"{head}/constant{number}")


def _first_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.output[0].startswith(output))


def _tensors() -> dict[str, Callable[[onnx.ModelProto], Any]]:
    """Constants in other files, of other types and of other shapes."""

    def outside(location: str, number: int = 0) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            tensor = _weights(model, number)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)
            tensor.external_data.add(key="length", value="384")

        return change

    def shaped(*dims: int, number: int = 0, content: bytes | None = None) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            tensor = _weights(model, number)
            del tensor.dims[:]
            tensor.dims.extend(dims)
            if content is not None:
                tensor.raw_data = content

        return change

    def typed(kind: int) -> Callable[[onnx.ModelProto], None]:
        return lambda model: setattr(_weights(model, 0), "data_type", kind)

    def sparse(model: onnx.ModelProto) -> None:
        values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
        indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6, 16]))

    def strings(model: onnx.ModelProto) -> None:
        _weights(model, 0).CopyFrom(
            helper.make_tensor("acceptance_rate/constant0", TensorProto.STRING, [2], [b"a", b"b"])
        )

    locations = ("/etc/passwd", "../../../../etc/passwd", "weights.bin", "", "/dev/zero", "file:///etc/passwd", "\x00")
    cases: dict[str, Callable[[onnx.ModelProto], Any]] = {
        f"external-{number}": outside(location) for number, location in enumerate(locations)
    }
    cases |= {f"type-{kind:02d}": typed(kind) for kind in (0, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 99)}
    cases |= {
        "external-bias": outside("/etc/hostname", 1),
        "shape-transposed": shaped(16, 6),
        "shape-five-features": shaped(5, 16, content=bytes(4 * 5 * 16)),
        "shape-seven-features": shaped(7, 16, content=bytes(4 * 7 * 16)),
        "shape-survival-of-six": _of_six,
        "shape-flat": shaped(96),
        "shape-3d": shaped(6, 16, 1),
        "shape-scalar": shaped(),
        "shape-negative": shaped(-6, -16),
        "shape-empty": shaped(0, 16, content=b""),
        "shape-huge": shaped(1 << 40, 1 << 20),
        "shape-huge-empty": shaped(1 << 40, content=b""),
        "shape-overflow": shaped(1 << 62, 16),
        "shape-many-dims": shaped(*([1] * 200), 6, 16),
        "shape-too-many-bytes": shaped(6, 16, content=bytes(385)),
        "shape-too-few-bytes": shaped(6, 16, content=bytes(380)),
        "shape-no-units": shaped(16, 0, number=2, content=b""),
        "shape-two-answers": shaped(2, number=3, content=bytes(8)),
        "shape-wide": shaped(6, 2000, content=bytes(4 * 6 * 2000)),
        "sparse-constant": sparse,
        "strings": strings,
        "segment": lambda model: _weights(model, 0).segment.CopyFrom(TensorProto.Segment(begin=0, end=1 << 40)),
        "float-and-raw": lambda model: _weights(model, 0).float_data.extend([1.0] * 96),
        "float-instead-of-raw": _as_float_data,
    }
    return cases


def _of_six(model: onnx.ModelProto) -> None:
    """The survival head with the acceptance head's features."""
    _weights(model, 0, "survival").CopyFrom(numpy_helper.from_array(np.zeros((6, 16), "f4"), "survival/constant0"))
    for attribute in _first_of(model, "survival/Scaler").attribute:
        del attribute.floats[6:]


def _as_float_data(model: onnx.ModelProto) -> None:
    tensor = _weights(model, 0)
    tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, [6, 16], numpy_helper.to_array(tensor).ravel()))


def _numbers() -> dict[str, Callable[[onnx.ModelProto], Any]]:
    """Numbers that are none, or too large to compute with."""

    def constant(number: int, value: float) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            tensor = _weights(model, number)
            values = numpy_helper.to_array(tensor).copy()
            values.flat[-1] = value
            tensor.raw_data = values.tobytes()

        return change

    def scaler(name: str, value: float) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            node = next(node for node in model.graph.node if node.op_type == "Scaler")
            next(attribute for attribute in node.attribute if attribute.name == name).floats[3] = value

        return change

    values = {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf, "enormous": 1e30}
    cases: dict[str, Callable[[onnx.ModelProto], Any]] = {}
    for word, value in values.items():
        cases |= {f"{word}-{number}": constant(number, value) for number in range(6)}
        cases |= {f"{word}-{name}": scaler(name, value) for name in ("offset", "scale")}
    return cases


def _operators() -> dict[str, Callable[[onnx.ModelProto], Any]]:
    """Other operators than ours, in the place of an honest one or before it."""

    def instead(operator: str, domain: str = "", at: int = 15, **attributes: Any) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            node = model.graph.node[at]
            node.CopyFrom(helper.make_node(operator, list(node.input), list(node.output), domain=domain, **attributes))
            if domain:
                model.opset_import.append(helper.make_opsetid(domain, 1))

        return change

    def before(operator: str, *constants: np.ndarray, **attributes: Any) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            node = model.graph.node[15]
            names = [f"evil{number}" for number in range(len(constants))]
            model.graph.initializer.extend(map(numpy_helper.from_array, constants, names))
            extra = helper.make_node(operator, [node.input[0], *names], ["evil"], **attributes)
            node.input[0] = "evil"
            model.graph.node.insert(15, extra)

        return change

    empty = helper.make_graph([], "body", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    huge = np.array([1 << 40, 1 << 20])
    cases = {
        f"operator-{operator}": instead(operator) for operator in ("Tanh", "Exp", "NonZero", "Optional", "Identity")
    }
    cases |= {
        "operator-custom": instead("Run", "evil"),
        "operator-python": instead("PyOp", "ai.onnx.contrib", module="os", compute="system"),
        "operator-microsoft": instead("FusedGemm", "com.microsoft"),
        "operator-long-name": instead("E" * 5000, "d" * 5000),
        "operator-control-characters": instead("\x1b[2J\x1b]0;owned\x07\nspeckv: all is well"),
        "operator-no-name": instead(""),
        "if": instead("If", then_branch=empty, else_branch=empty),
        "loop": instead("Loop", body=empty),
        "scan": instead("Scan", body=empty, num_scan_inputs=1),
        "sequence-map": instead("SequenceMap", body=empty),
        "expand-bomb": before("Expand", huge),
        "tile-bomb": before("Tile", huge),
        "pad-bomb": before("Pad", np.array([0, 1 << 40, 0, 1 << 40])),
        "resize-bomb": before("Resize", np.zeros(0, "f4"), np.array([1e9, 1e9], "f4")),
        "constant-of-shape-bomb": before("ConstantOfShape"),
        "one-hot-bomb": before("OneHot", np.array([1 << 40]), np.array([0, 1])),
        "gather-outside": before("Gather", np.array([1 << 30])),
        "gather-negative": before("Gather", np.array([-(1 << 30)])),
        "reshape-impossible": before("Reshape", np.array([-1, -1])),
        "reshape-huge": before("Reshape", huge),
        "slice": before("Slice", np.array([-(1 << 62)]), np.array([1 << 62])),
        "einsum": before("Einsum", equation="a" * 3000),
        "random": before("RandomNormalLike"),
        "string-split": before("StringSplit"),
        "regex": before("RegexFullMatch", pattern="(a+)+$"),
        "matmul-with-itself": before("MatMul", np.zeros((6, 6), "f4")),
        "extra-identity": before("Identity"),
        "clip-wider": lambda model: _weights(model, 4).CopyFrom(
            numpy_helper.from_array(np.float32(-9), _weights(model, 4).name)
        ),
        "constant-tensor": instead("Constant", value=numpy_helper.from_array(np.zeros(4))),
        "attribute-reference": lambda model: model.graph.node[15].attribute.append(
            AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="beta")
        ),
        "attribute-extra": lambda model: model.graph.node[15].attribute.append(helper.make_attribute("alpha", 1.0)),
        "attribute-graph": lambda model: model.graph.node[15].attribute.append(helper.make_attribute("body", empty)),
        "attribute-sparse": lambda model: model.graph.node[15].attribute.append(
            AttributeProto(name="s", type=AttributeProto.SPARSE_TENSOR)
        ),
        "attribute-type": lambda model: setattr(model.graph.node[12].attribute[0], "type", AttributeProto.INTS),
    }
    return cases


def _structure() -> dict[str, Callable[[onnx.ModelProto], Any]]:
    """Nodes out of order, other inputs and outputs, and everything around the graph."""

    def swap(model: onnx.ModelProto) -> None:
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(model.graph.node[12])
        second.CopyFrom(model.graph.node[13])
        model.graph.node[12].CopyFrom(second)
        model.graph.node[13].CopyFrom(first)

    def function(model: onnx.ModelProto) -> None:
        body = [helper.make_node("Loop", ["X"], ["Y"])]
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("", "Relu", ["X"], ["Y"], body, opsets))

    def training(model: onnx.ModelProto) -> None:
        model.training_info.add().algorithm.CopyFrom(model.graph)

    info = helper.make_tensor_value_info
    return {
        "nodes-swapped": swap,
        "node-missing": lambda model: model.graph.node.pop(15),
        "node-twice": lambda model: model.graph.node.append(model.graph.node[-1]),
        "pairing-missing": lambda model: model.graph.node.pop(0),
        "nodes-none": lambda model: model.graph.ClearField("node"),
        "cycle": lambda model: model.graph.node[13].input.__setitem__(0, model.graph.node[18].output[0]),
        "self-cycle": lambda model: model.graph.node[15].input.__setitem__(0, model.graph.node[15].output[0]),
        "unknown-input": lambda model: model.graph.node[13].input.__setitem__(1, "nowhere"),
        "other-heads-weights": lambda model: model.graph.node[13].input.__setitem__(1, "survival/constant0"),
        "other-heads-rows": lambda model: _first_of(model, "survival/Scaler").input.__setitem__(
            0, "acceptance_rate/rows"
        ),
        "other-heads-shape": lambda model: model.graph.node[-1].input.__setitem__(1, "acceptance_rate/shape"),
        "other-heads-signals": lambda model: _first_of(model, "survival/n").input.__setitem__(0, "signals"),
        "extra-input": lambda model: model.graph.node[15].input.append("signals"),
        "no-inputs": lambda model: model.graph.node[13].ClearField("input"),
        "extra-output": lambda model: model.graph.node[15].output.append("leak"),
        "no-outputs": lambda model: model.graph.node[15].ClearField("output"),
        "constant-unused": lambda model: model.graph.initializer.append(
            numpy_helper.from_array(np.zeros(4, "f4"), "u")
        ),
        "constant-twice": lambda model: model.graph.initializer.append(model.graph.initializer[-1]),
        "constant-missing": lambda model: model.graph.initializer.pop(),
        "graph-input-extra": lambda model: model.graph.input.append(info("prompt", TensorProto.STRING, ["N"])),
        "graph-input-missing": lambda model: model.graph.input.pop(),
        "graph-input-wide": lambda model: model.graph.input[0].CopyFrom(info("signals", TensorProto.FLOAT, ["N", 6])),
        "graph-input-double": lambda model: model.graph.input[0].CopyFrom(
            info("signals", TensorProto.DOUBLE, ["N", 5])
        ),
        "graph-input-swapped": lambda model: model.graph.input.append(model.graph.input.pop(0)),
        "graph-input-prefixes": lambda model: model.graph.input[2].CopyFrom(
            info("prefixes", TensorProto.FLOAT, ["N", 5])
        ),
        "graph-output-extra": lambda model: model.graph.output.append(info("rows", TensorProto.FLOAT, ["R", 6])),
        "graph-output-missing": lambda model: model.graph.output.pop(),
        "graph-output-twice": lambda model: model.graph.output.append(model.graph.output[0]),
        "graph-output-swapped": lambda model: model.graph.output.append(model.graph.output.pop(0)),
        "graph-output-huge": lambda model: model.graph.output[0].CopyFrom(
            info("acceptance_rate", TensorProto.FLOAT, [1 << 40, 1 << 40])
        ),
        "graph-value-info": lambda model: model.graph.value_info.append(info("n", TensorProto.FLOAT, [1 << 40])),
        "graph-doc": lambda model: setattr(model.graph, "doc_string", "x" * 2000),
        "graph-quantisation": lambda model: model.graph.quantization_annotation.add(),
        "graph-metadata": lambda model: model.graph.metadata_props.add(key="a", value="b"),
        "node-metadata": lambda model: model.graph.node[15].metadata_props.add(key="a", value="b"),
        "node-doc": lambda model: setattr(model.graph.node[15], "doc_string", "x"),
        "node-overload": lambda model: setattr(model.graph.node[15], "overload", "x"),
        "node-device": lambda model: model.graph.node[15].device_configurations.add(configuration_id="gpu"),
        "function-as-relu": function,
        "training-info": training,
        "ir-version-0": lambda model: setattr(model, "ir_version", 0),
        "ir-version-99": lambda model: setattr(model, "ir_version", 99),
        "opset-1": lambda model: setattr(model.opset_import[0], "version", 1),
        "opset-999": lambda model: setattr(model.opset_import[0], "version", 999),
        "opset-twice": lambda model: model.opset_import.append(model.opset_import[0]),
        "opset-extra": lambda model: model.opset_import.append(helper.make_opsetid("evil", 1)),
        "opset-none": lambda model: model.ClearField("opset_import"),
        "producer": lambda model: setattr(model, "producer_name", "pytorch"),
        "model-doc": lambda model: setattr(model, "doc_string", "x"),
        "model-devices": lambda model: model.configuration.add(name="gpu", num_devices=8),
        "graph-none": lambda model: model.ClearField("graph"),
    }


def described(good: bytes) -> Iterator[Case]:
    """Metadata that is missing, false or not what it seems."""

    def text(value: str | bytes) -> bytes:
        if isinstance(value, bytes):  # not UTF-8, which protobuf would not write
            mark = b"m" * len(value)
            return edit(good, lambda model: setattr(model.metadata_props[0], "value", mark.decode())).replace(
                mark, value
            )
        return edit(good, lambda model: setattr(model.metadata_props[0], "value", value))

    plain = onnx.ModelProto.FromString(good).metadata_props[0].value
    honest = json.loads(plain)
    features = honest["features"]
    changes: dict[str, Any] = {
        "features-swapped": {"features": [features[1], features[0], *features[2:]]},
        "features-reversed": {"features": features[::-1]},
        "features-five": {"features": features[:5]},
        "features-seven": {"features": [*features, "temperature"]},
        "features-text": {"features": "all"},
        "features-control-characters": {"features": ["\x1b[2J\n" * 1000]},
        "units": {"units": {**honest["units"], "mean_draft_entropy": "bits"}},
        "levels": {"compression_levels": {"fp16": 2, "int8": 1, "nf4": 0}},
        "schema-0": {"schema_version": 0},
        "schema-1": {"schema_version": 1},
        "schema-2": {"schema_version": 2},
        "schema-text": {"schema_version": "3"},
        "schema-huge": {"schema_version": 10**400},
        "heads-none": {"heads": []},
        "heads-unknown": {"heads": ["acceptance_rate", "shell"]},
        "heads-twice": {"heads": ["acceptance_rate", "acceptance_rate"]},
        "heads-one": {"heads": ["acceptance_rate"]},
        "heads-swapped": {"heads": honest["heads"][::-1]},
        "gammas-none": {"gammas": []},
        "gammas-zero": {"gammas": [0, 2]},
        "gammas-negative": {"gammas": [-4, 4]},
        "gammas-huge": {"gammas": [2, 1 << 40]},
        "gammas-unsorted": {"gammas": [8, 2]},
        "gammas-twice": {"gammas": [2, 2]},
        "gammas-float": {"gammas": [2.5]},
        "gammas-many": {"gammas": list(range(1, 50000))},
        "training-list": {"training": []},
        "versions-number": {"versions": {"onnx": 1}},
        "unknown-key": {"run": "curl"},
        "unknown-key-newline": {"run\nspeckv: all is well": 1},
    }
    for name, change in changes.items():
        yield f"metadata-{name}.onnx", text(json.dumps(honest | change, sort_keys=True, separators=(",", ":")))
    for key in ("heads", "gammas", "training", "versions"):
        rest = {name: value for name, value in honest.items() if name != key}
        yield f"metadata-without-{key}.onnx", text(json.dumps(rest, sort_keys=True, separators=(",", ":")))
    texts: dict[str, str | bytes] = {
        "empty": "",
        "null": "null",
        "list": "[]",
        "cut": plain[:-5],
        "spaces": json.dumps(honest),
        "key-twice": plain[:-1] + ',"heads":["acceptance_rate","survival"]}',
        "byte-order-mark": "\ufeff" + plain,
        "not-utf-8": b"\xff\xfe" * 40,
        "deep-list": '{"training":' + "[" * 60000 + "]" * 60000 + "}",
        "deep-object": '{"training":' + '{"a":' * 40000 + "1" + "}" * 40000 + "}",
        "nan": plain.replace('"training":{', '"training":{"loss":NaN,'),
        "long": plain.replace('"training":{', '"training":{"note":"' + "x" * 300_000 + '",'),
        "python": "__import__('os').system('true')",
    }
    for name, value in texts.items():
        yield f"metadata-{name}.onnx", text(value)
    yield "metadata-none.onnx", edit(good, lambda model: model.ClearField("metadata_props"))
    yield "metadata-other-key.onnx", edit(good, lambda model: setattr(model.metadata_props[0], "key", "other"))
    yield "metadata-twice.onnx", edit(good, lambda model: model.metadata_props.append(model.metadata_props[0]))
    yield "metadata-more.onnx", edit(good, lambda model: model.metadata_props.add(key="x", value="y"))


def forests(good: bytes) -> Iterator[Case]:
    """Tables that are no forest."""

    def tree(change: Callable[[dict[str, AttributeProto]], Any]) -> bytes:
        def whole(model: onnx.ModelProto) -> None:
            node = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
            change({attribute.name: attribute for attribute in node.attribute})

        return edit(good, whole)

    def put(name: str, at: int, value: Any, field: str = "ints") -> Callable[[dict[str, AttributeProto]], None]:
        return lambda tables: getattr(tables[name], field).__setitem__(at, value)

    def drop(name: str, field: str = "ints") -> Callable[[dict[str, AttributeProto]], Any]:
        return lambda tables: getattr(tables[name], field).pop()

    yes, no = "nodes_truenodeids", "nodes_falsenodeids"
    cases: dict[str, Callable[[dict[str, AttributeProto]], Any]] = {
        "cycle": put(yes, 2, 1),
        "self-cycle": put(yes, 1, 1),
        "to-the-root": put(no, 1, 0),
        "child-beyond": put(yes, 0, 1 << 40),
        "child-in-the-next-tree": put(yes, 0, 100_000),
        "child-negative": put(no, 0, -1),
        "child-most-negative": put(no, 0, -(1 << 63)),
        "child-twice": lambda tables: put(no, 0, tables[yes].ints[0])(tables),
        "leaf-with-a-child": lambda tables: put(yes, list(tables["nodes_modes"].strings).index(b"LEAF"), 1)(tables),
        "feature-6": put("nodes_featureids", 0, 6),
        "feature-negative": put("nodes_featureids", 0, -1),
        "feature-huge": put("nodes_featureids", 0, 1 << 62),
        "threshold-nan": put("nodes_values", 0, np.nan, "floats"),
        "threshold-inf": put("nodes_values", 0, np.inf, "floats"),
        "leaf-nan": put("target_weights", 0, np.nan, "floats"),
        "leaf-enormous": put("target_weights", 0, 1e38, "floats"),
        "tree-huge": put("nodes_treeids", 0, 1 << 40),
        "tree-negative": put("nodes_treeids", 0, -1),
        "tree-gap": lambda tables: put("nodes_treeids", -1, tables["nodes_treeids"].ints[-1] + 1)(tables),
        "node-renamed": put("nodes_nodeids", 1, 0),
        "node-beyond": put("nodes_nodeids", 1, 1 << 40),
        "target-node": put("target_nodeids", 0, 1 << 40),
        "target-tree": put("target_treeids", 0, 1 << 40),
        "target-1": put("target_ids", 0, 1),
        "target-negative": put("target_ids", 0, -1),
        "targets-2": lambda tables: setattr(tables["n_targets"], "i", 2),
        "targets-many": lambda tables: setattr(tables["n_targets"], "i", 1 << 40),
        "mode-equal": put("nodes_modes", 0, b"BRANCH_EQ", "strings"),
        "mode-member": put("nodes_modes", 0, b"BRANCH_MEMBER", "strings"),
        "mode-unknown": put("nodes_modes", 0, b"EXEC", "strings"),
        "mode-all-leaves": put("nodes_modes", 0, b"LEAF", "strings"),
        "short-features": drop("nodes_featureids"),
        "short-thresholds": drop("nodes_values", "floats"),
        "short-trees": drop("nodes_treeids"),
        "short-nodes": drop("nodes_nodeids"),
        "short-true": drop(yes),
        "short-false": drop(no),
        "short-modes": drop("nodes_modes", "strings"),
        "short-weights": drop("target_weights", "floats"),
        "short-targets": drop("target_nodeids"),
        "no-modes": lambda tables: tables["nodes_modes"].ClearField("strings"),
        "no-nodes": lambda tables: [table.ClearField("ints") for table in tables.values()],
        "table-renamed": lambda tables: setattr(tables[yes], "name", "nodes_yes"),
        "table-of-floats": lambda tables: tables[yes].floats.extend([1.0] * len(tables[yes].ints)),
    }
    for name, change in cases.items():
        yield f"forest-{name}.onnx", tree(change)
    extra = {
        "transform": helper.make_attribute("post_transform", "PROBIT"),
        "aggregate": helper.make_attribute("aggregate_function", "MAX"),
        "base": helper.make_attribute("base_values", [float("nan")]),
        "hits": helper.make_attribute("nodes_hitrates", [float("nan")]),
    }
    for name, attribute in extra.items():
        yield (
            f"forest-{name}.onnx",
            edit(good, lambda model, attribute=attribute: model.graph.node[12].attribute.append(attribute)),
        )
    for depth in (300, 30_000):
        yield f"forest-{depth}-levels.onnx", tree(lambda tables, depth=depth: _line(tables, depth))


def _line(tables: dict[str, AttributeProto], depth: int) -> None:
    """One tree whose every second child is a branch again; consistent in all else."""
    leaves = [number % 2 == 1 or number == 2 * depth for number in range(2 * depth + 1)]
    ids = [number for number, leaf in enumerate(leaves) if leaf]
    values = {
        "nodes_treeids": [0] * len(leaves),
        "nodes_nodeids": range(len(leaves)),
        "nodes_featureids": [0] * len(leaves),
        "nodes_truenodeids": [0 if leaf else number + 1 for number, leaf in enumerate(leaves)],
        "nodes_falsenodeids": [0 if leaf else number + 2 for number, leaf in enumerate(leaves)],
        "target_treeids": [0] * len(ids),
        "target_nodeids": ids,
        "target_ids": [0] * len(ids),
    }
    for name, table in values.items():
        tables[name].ClearField("ints")
        tables[name].ints.extend(table)
    for name, count in (("nodes_values", len(leaves)), ("target_weights", len(ids))):
        tables[name].ClearField("floats")
        tables[name].floats.extend([0.0] * count)
    tables["nodes_modes"].ClearField("strings")
    tables["nodes_modes"].strings.extend(b"LEAF" if leaf else b"BRANCH_LEQ" for leaf in leaves)


def bombs(good: bytes) -> Iterator[Case]:
    """Few bytes that ask a parser for much memory or time."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    def nested(content: bytes, *numbers: int) -> bytes:
        for number in reversed(numbers):
            content = field(number, content)
        return content

    many = 3 << 20
    cases = {
        "nodes": nested(b"\x0a\x00" * many, 7),
        "constants": nested(b"\x2a\x00" * many, 7),
        "values": nested(b"\x6a\x00" * many, 7),
        "attributes": nested(b"\x2a\x00" * many, 7, 1),
        "inputs": nested(b"\x0a\x00" * many, 7, 1),
        "attribute-tensors": nested(b"\x52\x00" * many, 7, 1, 5),
        "attribute-graphs": nested(b"\x5a\x00" * many, 7, 1, 5),
        "strings": nested(b"\x0a\x01m" + b"\x4a\x00" * many + b"\xa0\x01\x08", 7, 1, 5),
        "integers": nested(b"\x0a\x01m" + b"\x40\x01" * many + b"\xa0\x01\x07", 7, 1, 5),
        "long-integers": nested(b"\x0a\x01m" + b"\x40" + b"\xff" * many, 7, 1, 5),
        "packed-integers": nested(b"\x01" * 2 * many, 7, 1, 5, 8),
        "constant-integers": nested(b"\x01" * 2 * many, 7, 5, 7),
        "metadata": nested(b"", 14) * many,
        "opsets": nested(b"", 8) * many,
        "functions": nested(b"", 25)[:3] * many,
        "unknown": b"\xf8\x07\x01" * many,
        "graph-in-graph": nested(b"", *([7, 1, 5, 6] * 2000), 1),
        "groups": b"\x0b" * many,
        "endless-integer": b"\x08" + b"\xff" * many,
        "length-beyond": b"\x3a\xff\xff\xff\xff\x7f" + good,
        "length-negative": b"\x3a" + b"\xff" * 9 + b"\x01" + good,
        "name": nested(b"\x0a" + _varint(4 * many) + b"n" * 4 * many, 7, 1),
        "too-large": bytes((8 << 20) + 1),
    }
    cases["large-forest"] = _large_forest(good, 0.5, "MAX")
    cases["large-forest-nan"] = _large_forest(good, np.nan, "SUM")
    for name, content in cases.items():
        yield f"bomb-{name}.onnx", content
        if name in ("nodes", "unknown", "metadata"):
            yield f"bomb-{name}-in-a-good-one.onnx", good + content


def _large_forest(good: bytes, value: float, aggregate: str) -> bytes:
    """Almost as large as a controller may be, and wrong only at its end: what takes longest to refuse."""
    trees, leaves = 500, 256
    nodes = np.arange(2 * leaves - 1)
    child = np.where(nodes < leaves - 1, 2 * nodes + 1, 0)
    values = np.full(trees * leaves, 1e-3, np.float32)
    values[-1] = value
    forest = Forest(
        sizes=np.full(trees, len(nodes)),
        features=np.tile(nodes % 6, trees),
        thresholds=np.full(trees * len(nodes), 0.5, np.float32),
        below=np.tile(child, trees),
        above=np.tile(np.where(child, child + 1, 0), trees),
        values=values,
    )
    plain = onnx.ModelProto.FromString(good).metadata_props[0].value.replace(',"survival"', "")
    model = assemble({"acceptance_rate": Head(forest)}, plain)
    if aggregate != "SUM":
        model.graph.node[12].attribute.append(helper.make_attribute("aggregate_function", aggregate))
    return bytes(model.SerializeToString())


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
