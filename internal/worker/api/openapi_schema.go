package api

import (
	"strings"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
)

// schemas collects the schemas that operations refer to.
type schemas struct {
	components object
	names      map[*repository.Model]string // by which components begin
}

func reference(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// of returns a reference to the schema of the kind that m has, made by one.
func (s *schemas) of(m *repository.Model, kind string, one func(*repository.Model) object) object {
	begin, ok := s.names[m]
	if !ok {
		begin = strings.Map(componentRune, m.Name)
		for s.taken(begin) { // by a model whose name differs in what is replaced
			begin += "_"
		}
		s.names[m] = begin
	}
	name := begin + "-" + kind
	if s.components[name] == nil {
		s.components[name] = one(m)
	}
	return reference(name)
}

func (s *schemas) taken(begin string) bool {
	for _, other := range s.names {
		if other == begin {
			return true
		}
	}
	return false
}

// componentRune replaces what the name of a component cannot have (OpenAPI 3.1, section
// 4.8.7).
func componentRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
		return r
	}
	return '_'
}

// Schemas of a few words.
func typed(name string) object     { return object{"type": name} }
func constant(value string) object { return object{"const": value} }
func list(of object) object        { return object{"type": "array", "items": of} }
func anyOf(of ...object) object    { return object{"anyOf": of} }
func fields(properties object, required ...string) object {
	o := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// commonSchemas are those of errors.
func commonSchemas() object {
	text := typed("string")
	return object{
		"Error":         fields(object{"error": text}, "error"),
		"HTTPException": fields(object{"detail": text}, "detail"),
		"HTTPValidationError": fields(object{"detail": list(fields(object{
			"type": text, "msg": text, "loc": list(anyOf(text, typed("integer"))), "input": object{}, "ctx": typed("object"),
		}, "type", "loc", "msg"))}, "detail"),
	}
}

// elementSchema is that of one element.
func elementSchema(dt inference.DataType) object {
	switch dt {
	case inference.Bool:
		return typed("boolean")
	case inference.Bytes:
		return typed("string")
	case inference.FP16, inference.BF16, inference.FP32, inference.FP64:
		return typed("number")
	}
	return typed("integer")
}

// tensorSchema is that of arrays in one another, of the shape.
func tensorSchema(dt inference.DataType, shape []int64) object {
	schema := elementSchema(dt)
	for i := len(shape) - 1; i >= 0; i-- {
		schema = list(schema)
		if size := shape[i]; size >= 0 {
			schema["minItems"], schema["maxItems"] = size, size
		}
	}
	return schema
}

func predictSchema(m *repository.Model) object {
	row := list(elementSchema(m.Inputs()[m.Predict.Input].DataType))
	if width := m.Predict.Row.Width; width >= 0 {
		row["minItems"], row["maxItems"] = width, width
	}
	return fields(object{"features": anyOf(row, list(row))}, "features")
}

func predictionSchema(*repository.Model) object {
	number := typed("number")
	return fields(object{
		"prediction": number, "predictions": list(number), "probabilities": anyOf(list(number), list(list(number))),
		"model": typed("string"), "version": typed("string"),
	}, "model", "version")
}

func inferSchema(m *repository.Model) object {
	var inputs []object
	for _, info := range m.Inputs() {
		inputs = append(inputs, fields(object{
			"name": constant(info.Name), "datatype": constant(info.DataType.String()),
			"shape": shapeSchema(info.Shape), "data": dataSchema(info.DataType, info.Shape),
		}, "name", "datatype", "shape", "data"))
	}
	tensors := list(anyOf(inputs...))
	tensors["minItems"], tensors["maxItems"] = len(inputs), len(inputs)
	return fields(object{
		"id": typed("string"), "parameters": typed("object"), "inputs": tensors,
		"outputs": list(fields(object{"name": typed("string"), "parameters": typed("object")}, "name")),
	}, "inputs")
}

// shapeSchema is that of a tensor's sizes.
func shapeSchema(shape []int64) object {
	schema := list(typed("integer"))
	schema["minItems"], schema["maxItems"] = len(shape), len(shape)
	return schema
}

// dataSchema is that of elements, nested as the shape says or one after the other.
func dataSchema(dt inference.DataType, shape []int64) object {
	if flat := list(elementSchema(dt)); len(shape) != 1 {
		return anyOf(tensorSchema(dt, shape), flat)
	}
	return tensorSchema(dt, shape)
}

func inferredSchema(m *repository.Model) object {
	var outputs []object
	for _, info := range m.Outputs() {
		outputs = append(outputs, fields(object{
			"name": constant(info.Name), "datatype": constant(info.DataType.String()),
			"shape": shapeSchema(info.Shape), "data": list(elementSchema(info.DataType)),
		}, "name", "datatype", "shape", "data"))
	}
	return fields(object{
		"model_name": typed("string"), "model_version": typed("string"), "id": typed("string"), "outputs": list(anyOf(outputs...)),
	}, "model_name", "outputs")
}

// named returns a schema with a property for each tensor, of its shape from size skip on.
func named(tensors []inference.TensorInfo, skip int) object {
	properties, names := make(object), []string{}
	for _, info := range tensors {
		properties[info.Name] = tensorSchema(info.DataType, info.Shape[min(skip, len(info.Shape)):])
		names = append(names, info.Name)
	}
	return fields(properties, names...)
}

// values is the schema of the only tensor, or of an object with all; see named.
func values(tensors []inference.TensorInfo, skip int) object {
	if len(tensors) != 1 {
		return named(tensors, skip)
	}
	return tensorSchema(tensors[0].DataType, tensors[0].Shape[min(skip, len(tensors[0].Shape)):])
}

func servingSchema(m *repository.Model) object {
	in := m.Inputs()
	row, whole := values(in, 1), values(in, 0)
	if len(in) == 1 {
		row, whole = anyOf(row, named(in, 1)), anyOf(whole, named(in, 0))
	}
	rows, name := list(row), constant("serving_default")
	rows["minItems"] = 1
	return object{"oneOf": []object{
		fields(object{"signature_name": name, "instances": rows}, "instances"),
		fields(object{"signature_name": name, "inputs": whole}, "inputs"),
	}}
}

func servedSchema(m *repository.Model) object {
	out := m.Outputs()
	return object{"oneOf": []object{
		fields(object{"predictions": list(values(out, 1))}, "predictions"),
		fields(object{"outputs": values(out, 0)}, "outputs"),
	}}
}

// indexSchema is of the answer of POST /v2/repository/index.
func indexSchema(*repository.Model) object {
	text := object{"type": "string"}
	return object{"type": "array", "items": object{
		"type": "object", "required": []string{"name", "version", "state", "reason"},
		"properties": object{"name": text, "version": text, "state": text, "reason": text},
	}}
}
