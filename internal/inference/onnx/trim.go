package onnx

/*
#include <stddef.h>

extern int malloc_trim(size_t pad) __attribute__((weak)); // of glibc alone

static void giveBack(void) { if (malloc_trim != NULL) malloc_trim(0); }
*/
import "C"

// Trim gives back to the kernel what loading has freed: ONNX Runtime packs weights before it
// finds that they are packed already, and glibc keeps blocks of up to 32 MiB (M_MMAP_THRESHOLD
// in mallopt(3)). Whoever allocates native memory meanwhile may wait for some milliseconds.
func Trim() { C.giveBack() }
