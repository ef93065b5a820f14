// Package digits reads testdata/digits: the held-out samples that the models in
// models/ have not seen, and what scikit-learn answers to them. The script
// scripts/make-models.py writes both.
//
// Tests call it; it knows no engine and no protocol, and loads no model.
//
// A Set is plain data, shared by nothing: each Load reads the files again.
package digits
