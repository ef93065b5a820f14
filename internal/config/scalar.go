package config

import (
	"reflect"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// kind is how a node is written.
type kind int

const (
	isText kind = iota // in quotes, or a block of lines
	isWord             // text without quotes
	isNumber
	isBool
	isNull
	isMapping
	isList
	isOther
)

// String names the kind in a message: "is …".
func (k kind) String() string {
	return [...]string{
		isText: "text", isWord: "text", isNumber: "a number", isBool: "a boolean",
		isNull: "empty", isMapping: "a section", isList: "a list", isOther: "something else",
	}[k]
}

// kindOf returns how a node is written.
func kindOf(n ast.Node) kind {
	_, k := scalar(n)
	return k
}

// scalar returns the text of a scalar, numbers as they are written, and its kind.
func scalar(node ast.Node) (string, kind) {
	switch n := node.(type) {
	case *ast.StringNode:
		if t := n.GetToken().Type; t == token.SingleQuoteType || t == token.DoubleQuoteType {
			return n.Value, isText
		}
		return n.Value, isWord
	case *ast.LiteralNode:
		return n.Value.Value, isText
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, isNumber
	case *ast.BoolNode:
		return n.GetToken().Value, isBool
	case *ast.NullNode:
		return n.GetToken().Value, isNull
	case *ast.MappingNode:
		if len(n.Values) == 1 && !n.IsFlowStyle {
			return scalar(n.Values[0])
		}
		return "", isMapping
	case *ast.MappingValueNode:
		if text, ok := glued(n); ok {
			return text, isWord
		}
		return "", isMapping
	case *ast.SequenceNode:
		return "", isList
	}
	return "", isOther
}

// glued returns the text of a word such as helper:decode within brackets. To YAML that is one
// word, as no blank follows its colon (YAML 1.2.2, section 7.3.3); the parser makes a section of it.
func glued(n *ast.MappingValueNode) (string, bool) {
	key, kind := scalar(n.Key)
	value, kind2 := scalar(n.Value)
	if n.Start == nil || kind != isWord || kind2 != isWord && kind2 != isNumber {
		return "", false
	}
	colon, after := positionOf(n.Start), at(n.Value)
	if colon.line != after.line || after.column != colon.column+1 {
		return "", false
	}
	return key + ":" + value, true
}

// fits says whether a scalar of this kind may be a value of v's type. Text may be
// a number when it is a plain one (a version, a group), since nobody quotes those;
// 1.10 or 0x1F would not come back as written from other tools.
func fits(k kind, text string, v reflect.Value) bool {
	reads := readsText(v.Type()) || v.Type() == durationType
	switch k {
	case isText:
		return reads || v.Kind() == reflect.String
	case isWord:
		return true // a wrong word is a wrong value
	case isNumber:
		_, err := parseInt(text)
		return v.CanInt() || v.CanFloat() || reads || v.Kind() == reflect.String && err == nil
	case isBool:
		return v.Kind() == reflect.Bool
	}
	return false
}
