// Package batch joins requests into one run of their model.
//
// It owns a worker's runners: places in each of which one run takes place at a time.
// Whoever finds one free runs at once. While all are taken jobs wait in line, first come
// first served; when a runner becomes free the first in line leads: it takes along those
// behind it that the same model can answer in the same run, copies their rows into one
// tensor, runs, and gives each its rows of the result. So a batch forms only from what
// would have waited anyway, and nobody waits for company unless the model says so
// (Model.Delay). A run takes place in the goroutine of the job that leads it.
//
// What can be joined: jobs of one model whose inputs differ in nothing but the first size.
// If a joint run fails, or its outputs do not have a row for each row of the inputs, its
// jobs are run one by one, so that a bad one fails alone.
//
// Called by worker/api. It starts nothing and knows neither requests nor protocols.
//
// All methods are safe for concurrent use. Do allocates nothing in the steady state.
package batch
