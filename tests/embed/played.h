/* played - a model in C for host50: asks the tool `weather`, then says what the tool said. */
#include <moonrig_ext.h>
#include <stdio.h>
#include <string.h>
#define S(text) ((struct mr_str){text, strlen(text)})

static const struct mr_val *at(const struct mr_val *v, const char *key, int n) /* the n-th of v[key] */
{
  struct mr_iter it = {.of = mr_ext()->get(v, S(key))};
  for (; n >= 0 && mr_ext()->next(&it); n--) continue;
  return n < 0 ? it.val : NULL;
}

static void played(void *ud, struct mr_model_use *use)
{
  const struct mr_val *result = at(at(mr_model_use_request(use), "messages", 2), "content", 0);
  struct mr_str text = mr_ext()->as_str(mr_ext()->get(at(result, "content", 0), S("text")));
  char reply[300] = "{\"content\":[{\"type\":\"tool_use\",\"name\":\"weather\",\"input\":{\"city\":\"Bergen\"}}]}";
  if (text.n)
    snprintf(reply, sizeof reply, "{\"content\":[{\"type\":\"text\",\"text\":\"It is %.*s.\"}]}", (int)text.n, text.p);
  mr_model_use_finish(&use, reply);
}
