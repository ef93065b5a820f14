package ipc

import "runtime/debug"

// ProgramVersion returns the version of this program: linked, what the linker was told, else that
// of its module, else "dev".
func ProgramVersion(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
