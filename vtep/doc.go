// Package vtep is the file of a VTEP that needs no server, vtep.yaml: what may stand in it, and the plan that it asks for.
//
// It takes octets and returns values; it reads no file, knows no interface and no clock. What an agent does with the plan is the same as with
// a server's. Every mistake is a *model.Error that names the line, and all of them are said at once. Read File, Parse and File.Plan first.
package vtep
