// Package repository holds the models that a worker serves: it loads every file of
// its generation, compares each with what its settings say of inputs and outputs, binds it
// to POST /predict, and finds a model by name and version.
//
// Called by the worker, which loads and closes it, and by worker/api. It never looks
// for files (the manifest names them) and never decides which version an operator
// wants beyond what the settings say.
//
// A Repository does not change after Load: Find, FindBytes and All may be called from
// any goroutine and do not allocate. Model.Run lets one run of a model follow the
// other. Close is called once, when nobody runs a model any more.
package repository
