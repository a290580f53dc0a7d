/* agent_input - what a model wrote against the schema of the tool: one line a case. */
#include "kit.h"
#include "agent/session_t.h"

#include <stdlib.h>

struct one {
  const char *schema, *input, *why; /* why: words of the message; NULL: it fits */
};

static const struct one cases[] = {
    {"{\"type\":\"object\"}", "{}", NULL},
    {"{\"type\":\"object\"}", "{\"any\":[1]}", NULL},
    {"{\"type\":\"object\"}", "[]", "the input must be an object, not an array"},
    {"{\"type\":\"object\"}", "{\"INVALID_JSON\":\"{\\\"a\\\":\"}", "the input is not valid JSON"},
    {"{\"type\":\"object\"}", "{\"INVALID_JSON\":\"x\",\"b\":1}", NULL},
    {"{\"type\":\"object\",\"required\":[\"id\"]}", "{}", "the input needs the field id"},
    {"{\"type\":\"object\",\"required\":[\"id\"]}", "{\"id\":null}", NULL},
    {"{\"properties\":{\"id\":{\"type\":\"string\"}}}", "{\"id\":5}", "id must be a string, not a number"},
    {"{\"properties\":{\"n\":{\"type\":\"integer\"}}}", "{\"n\":5.5}", "n must be an integer, not a number"},
    {"{\"properties\":{\"n\":{\"type\":\"integer\"}}}", "{\"n\":5.0}", NULL},
    {"{\"properties\":{\"n\":{\"type\":[\"integer\",\"null\"]}}}", "{\"n\":null}", NULL},
    {"{\"properties\":{\"n\":{\"type\":[\"integer\",\"null\"]}}}", "{\"n\":\"5\"}", "n is a string"},
    {"{\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"properties\":{\"q\":{\"minimum\":1}}}}}}",
     "{\"a\":[{\"q\":1},{\"q\":0}]}", "a[1].q must be at least 1"},
    {"{\"properties\":{\"n\":{\"maximum\":10}}}", "{\"n\":10}", NULL},
    {"{\"properties\":{\"n\":{\"exclusiveMaximum\":10}}}", "{\"n\":10}", "n must be less than 10"},
    {"{\"properties\":{\"n\":{\"exclusiveMinimum\":0}}}", "{\"n\":0}", "n must be more than 0"},
    {"{\"properties\":{\"c\":{\"enum\":[\"EUR\",\"USD\"]}}}", "{\"c\":\"EUR\"}", NULL},
    {"{\"properties\":{\"c\":{\"enum\":[\"EUR\",\"USD\"]}}}", "{\"c\":\"eur\"}", "c must be one of: EUR, USD"},
    {"{\"properties\":{\"c\":{\"const\":1}}}", "{\"c\":2}", "c has another value"},
    {"{\"properties\":{\"s\":{\"minLength\":2,\"maxLength\":3}}}", "{\"s\":\"\xc3\xa4\xc3\xb6\xc3\xbc\"}", NULL},
    {"{\"properties\":{\"s\":{\"minLength\":2}}}", "{\"s\":\"\xc3\xa4\"}", "s must have at least 2 characters"},
    {"{\"properties\":{\"s\":{\"maxLength\":1}}}", "{\"s\":\"ab\"}", "s must have at most 1 characters"},
    {"{\"properties\":{\"a\":{\"maxItems\":1}}}", "{\"a\":[1,2]}", "a must have at most 1 items"},
    {"{\"properties\":{\"id\":{\"pattern\":\"^PO-?[0-9]+$\"}}}", "{\"id\":\"PO-17\"}", NULL},
    {"{\"properties\":{\"id\":{\"pattern\":\"^PO-?[0-9]+$\"}}}", "{\"id\":\"PX-17\"}", "id must match ^PO-?[0-9]+$"},
    {"{\"properties\":{\"d\":{\"pattern\":\"^\\\\d{4}-\\\\d{2}$\"}}}", "{\"d\":\"2026-11\"}", NULL},
    {"{\"properties\":{\"d\":{\"pattern\":\"^\\\\d{4}-\\\\d{2}$\"}}}", "{\"d\":\"2026-1x\"}", "d must match"},
    {"{\"properties\":{\"d\":{\"pattern\":\"^[\\\\w.-]+@\\\\w+\\\\.\\\\w+$\"}}}", "{\"d\":\"a.b-c@d.e\"}", NULL},
    {"{\"properties\":{\"d\":{\"pattern\":\"^[\\\\w.-]+@\\\\w+\\\\.\\\\w+$\"}}}", "{\"d\":\"a b@d.e\"}", "d must match"},
    /* what regcomp would read otherwise passes */
    {"{\"properties\":{\"d\":{\"pattern\":\"^(?!x)a\"}}}", "{\"d\":\"b\"}", NULL},
    {"{\"properties\":{\"d\":{\"pattern\":\"(a)\\\\1\"}}}", "{\"d\":\"b\"}", NULL},
    {"{\"properties\":{\"d\":{\"pattern\":\"[a\"}}}", "{\"d\":\"b\"}", NULL},
    {"{\"properties\":{\"d\":{\"pattern\":\"((a{1,200}){1,200}){1,200}\"}}}", "{\"d\":\"b\"}", NULL},
    {"{\"properties\":{\"a\":{}},\"additionalProperties\":false}", "{\"a\":1}", NULL},
    {"{\"properties\":{\"a\":{}},\"additionalProperties\":false}", "{\"b\":1}", "the input must not have the field b"},
    {"{\"additionalProperties\":{\"type\":\"number\"}}", "{\"b\":\"x\"}", "b must be a number"},
    {"{\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", "{\"b\":1}", NULL},
    {"{\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", "{\"c\":1}", "fits none of its alternatives"},
    {"{\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", "{\"a\":1,\"b\":1}", "exactly one"},
    {"{\"allOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", "{\"a\":1}", "needs the field b"},
    {"{\"not\":{\"required\":[\"a\"]}}", "{\"a\":1}", "must not be this"},
    {"{\"properties\":{\"x\":false}}", "{\"x\":1}", "x must not be there"},
    {"{\"properties\":{\"x\":{\"$ref\":\"#/nowhere\",\"type\":\"string\"}}}", "{\"x\":1}", NULL},
    {"{\"oneOf\":[{\"$ref\":\"#/a\"},{\"$ref\":\"#/b\"}]}", "{}", NULL},
    {"{\"oneOf\":[{\"required\":[\"a\"],\"format\":\"odd\"},{\"required\":[\"a\"]}]}", "{\"a\":1}", NULL},
    {"{\"not\":{\"$ref\":\"#/a\"}}", "{}", NULL},
    {"{\"properties\":{\"n\":{\"enum\":[5]}}}", "{\"n\":5.0}", NULL},
    {"{\"properties\":{\"s\":{\"pattern\":\"^.{1,3}$\"}}}", "{\"s\":\"\xc3\xa4\xc3\xb6\xc3\xbc\"}", NULL},
    {"{\"properties\":{\"s\":{\"pattern\":\"^a{,3}$\"}}}", "{\"s\":\"a{,3}\"}", NULL},
    {"{\"type\":\"strange\",\"format\":\"odd\",\"x-own\":1}", "{}", NULL},
    {"true", "{}", NULL},
};

TEST(one_line_a_case)
{
  char why[400];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct one *c = &cases[i];
    yyjson_doc *schema = yyjson_read(c->schema, strlen(c->schema), 0), *in = yyjson_read(c->input, strlen(c->input), 0);
    if (!schema || !in) test_fail(__FILE__, __LINE__, "case %zu is not JSON", i);
    bool ok = mr_input_fits(yyjson_doc_get_root(schema), yyjson_doc_get_root(in), why, sizeof why);
    if (ok != !c->why || (c->why && !strstr(why, c->why)))
      test_fail(__FILE__, __LINE__, "%s with %s: %s \"%s\"", c->schema, c->input, ok ? "fits" : "does not fit", why);
    yyjson_doc_free(schema);
    yyjson_doc_free(in);
  }
}

/* Alternatives of alternatives of ...: twice as many with each level. */
TEST(it_ends)
{
  char *schema = malloc(1 << 20), why[100];
  size_t n = 0;
  for (int i = 0; i < 30; i++)
    n += (size_t)sprintf(schema + n, "{\"anyOf\":[{\"type\":\"string\"},");
  n += (size_t)sprintf(schema + n, "{\"type\":\"string\"}");
  for (int i = 0; i < 30; i++)
    n += (size_t)sprintf(schema + n, "]}");
  yyjson_doc *s = yyjson_read(schema, n, 0), *in = yyjson_read("{}", 2, 0);
  CHECK(s && in);
  CHECK(!mr_input_fits(yyjson_doc_get_root(s), yyjson_doc_get_root(in), why, sizeof why));
  CHECK(strstr(why, "fits none"));
  yyjson_doc_free(s);
  yyjson_doc_free(in);
  free(schema);
}
