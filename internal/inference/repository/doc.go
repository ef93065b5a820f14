// Package repository holds the models that a worker serves: it loads every file of
// its generation, compares each with what its settings say of inputs and outputs, binds it
// to POST /predict, and finds a model by name and version. Later it loads others beside
// them, and serves those from one moment on.
//
// Called by the worker, which loads, changes and closes it, and by worker/api. It never looks
// for files (the manifest names them) and never decides which version an operator
// wants beyond what the settings say.
//
// Find, FindBytes, All and Every see one of the sets that were served, whole; they may be
// called from any goroutine and do not allocate. Whoever runs what it finds has entered
// before, and leaves afterwards: a model that is served no more is closed when the last has
// left that may have found it. Model.Run lets one run of a model follow the other.
// Prepare, Commit and Drop are for one goroutine at a time; what Commit returns is for any.
// Close is called once, when nobody runs a model any more.
package repository
