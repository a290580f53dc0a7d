// main.go - runs the suite against the server of $SDK_URL. Arguments select tests by name.
package main

import (
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	test("world/the-sdk-is-the-pinned-one", func() {
		info, _ := debug.ReadBuildInfo()
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/anthropics/anthropic-sdk-go") {
				same([]any{m.Path, m.Version, m.Replace}, []any{sdkPath, os.Getenv("SDK_VERSION"), "<nil>"})
				return
			}
		}
		fail("no SDK in %v", info)
	})
	crud()
	streams()
	tools()
	confirmations()
	interrupts()
	grading()
	coordinators()
	budgets()
	paging()
	mistakes()
	resumes()
	workers()
	if run(os.Args[1:]) > 0 {
		os.Exit(1)
	}
}
