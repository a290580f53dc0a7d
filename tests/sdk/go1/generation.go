// generation.go - what differs between the generations of the SDK.
package main

import (
	"encoding/json"

	"github.com/anthropics/anthropic-sdk-go"
)

const sdkPath = "github.com/anthropics/anthropic-sdk-go"

var asItAsks = []any{"", key, "2023-06-01", "beta=true"}

// The machine's word for an error is in its body only.
func codeOf(e *anthropic.Error) string {
	var body struct {
		Error struct {
			Details struct {
				ErrorCode string `json:"error_code"`
			}
		}
	}
	check(json.Unmarshal([]byte(e.RawJSON()), &body) == nil, "%s", e.RawJSON())
	return body.Error.Details.ErrorCode
}
