/* toolset.c - names, descriptions and schemas of the built-in tools; see toolset.h. */
#include "agent/toolset.h"

static const struct mr_toolset_tool tools[] = {
    {"bash",
     "Run a command in a persistent bash shell inside the session's sandbox. The working directory, "
     "variables and background jobs stay between calls; standard input is empty; standard error is "
     "merged into the output, of which the last 102,400 characters are returned. What a background process "
     "prints after the command ended goes to a file that the result names. restart starts a fresh shell.",
     "{\"type\":\"object\",\"properties\":{\"command\":{\"type\":\"string\"},\"restart\":{\"type\":"
     "\"boolean\"},\"timeout_ms\":{\"type\":\"integer\",\"minimum\":0,\"description\":\"default 120000\"}}}"},
    {"read",
     "Read a text file, an image, a PDF or a notebook (its cells and outputs as text; with view_range the "
     "lines of the file itself). Text files over 262,144 bytes need view_range.",
     "{\"type\":\"object\",\"properties\":{\"file_path\":{\"type\":\"string\"},\"view_range\":{\"type\":"
     "\"array\",\"items\":{\"type\":\"integer\"},\"description\":\"[first, last] line, from 1; last <= 0 "
     "reads to the end\"}},\"required\":[\"file_path\"]}"},
    {"write", "Write a whole file; missing directories are made, an existing file is replaced in one step.",
     "{\"type\":\"object\",\"properties\":{\"file_path\":{\"type\":\"string\"},\"content\":{\"type\":"
     "\"string\"}},\"required\":[\"file_path\",\"content\"]}"},
    {"edit",
     "Replace old_string in a file by new_string. It must occur exactly once unless replace_all is true.",
     "{\"type\":\"object\",\"properties\":{\"file_path\":{\"type\":\"string\"},\"old_string\":{\"type\":"
     "\"string\"},\"new_string\":{\"type\":\"string\"},\"replace_all\":{\"type\":\"boolean\"}},"
     "\"required\":[\"file_path\",\"old_string\",\"new_string\"]}"},
    {"glob",
     "List files whose path matches a pattern such as **/*.csv, newest first, at most 200. Names that begin "
     "with a dot need a pattern that does so too; .git and node_modules are left out.",
     "{\"type\":\"object\",\"properties\":{\"pattern\":{\"type\":\"string\"},\"path\":{\"type\":"
     "\"string\"}},\"required\":[\"pattern\"]}"},
    {"grep",
     "Search a file, or the files below a directory, for a regular expression (PCRE2); prints "
     "path:line:text. .git, node_modules, links and lines over 2,000 characters are left out.",
     "{\"type\":\"object\",\"properties\":{\"pattern\":{\"type\":\"string\"},\"path\":{\"type\":"
     "\"string\"}},\"required\":[\"pattern\"]}"},
    {"web_fetch",
     "Fetch a web page or a document: HTML as readable text with its links, other texts as they are, PDFs. "
     "Only "
     "URLs that stand in the conversation can be fetched: those in the user's messages, and in results of "
     "web_search, web_fetch and custom tools.",
     "{\"type\":\"object\",\"properties\":{\"url\":{\"type\":\"string\",\"description\":\"http or https, at "
     "most 250 characters\"}},\"required\":[\"url\"]}"},
    {"web_search",
     "Search the web. Each result has a URL, a title and a piece of text; web_fetch gets the whole page.",
     "{\"type\":\"object\",\"properties\":{\"query\":{\"type\":\"string\"}},\"required\":[\"query\"]}"},
};

const char *const mr_toolset_note =
    "Your tools run in a sandbox, except web_fetch and web_search. The working directory is /workspace; read, "
    "write, "
    "edit, glob and grep work there, in /tmp and in /mnt/session, bash everywhere. Files given to you are "
    "read-only "
    "under /mnt/session/uploads. Write what the user should receive to /mnt/session/outputs.";

const char *const mr_toolset_note_own =
    "Your tools run in an environment that the user hosts. Begin in its working directory: relative paths are "
    "below it.";

const struct mr_toolset_tool *mr_toolset_at(int i)
{
  return i >= 0 && (size_t)i < sizeof tools / sizeof *tools ? &tools[i] : NULL;
}

bool mr_toolset_has(struct mr_str name)
{
  for (int i = 0; mr_toolset_at(i); i++)
    if (mr_str_is(name, tools[i].name)) return true;
  return false;
}

bool mr_toolset_web(struct mr_str name)
{
  return mr_str_is(name, "web_fetch") || mr_str_is(name, "web_search");
}
