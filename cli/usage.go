package cli

// Usagef is a mistake in the command line, for commands that live elsewhere: it ends the program with status 2.
func Usagef(fix, format string, args ...any) error { return usagef("", fix, format, args...) }
