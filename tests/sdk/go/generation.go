// generation.go - what differs between the generations of the SDK.
package main

import "github.com/anthropics/anthropic-sdk-go/v2"

const sdkPath = "github.com/anthropics/anthropic-sdk-go/v2"

var asItAsks = []any{"Bearer " + key, "", "2026-10-21", ""}

func codeOf(e *anthropic.Error) string { return string(e.ErrorCode()) }
