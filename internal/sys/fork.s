// The package needs an assembly file, if an empty one, for the compiler to
// accept the body-less functions that fork.go links by name.
