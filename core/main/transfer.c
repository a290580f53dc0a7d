/* transfer.c - `moonrig fork`, `moonrig export`, `moonrig import`: sessions copied, and carried as one file. */
#include "main/client.h"

#include <errno.h>
#include <unistd.h>

/* The object of an operation: members whose value is NULL are left out, and workspace unless it is not wanted. */
static char *object(const char *const pairs[][2], size_t n, bool no_workspace)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_val *o = yyjson_mut_obj(d);
  char *text;

  yyjson_mut_doc_set_root(d, o);
  for (size_t i = 0; i < n; i++)
    if (pairs[i][1]) yyjson_mut_obj_add_str(d, o, pairs[i][0], pairs[i][1]);
  if (no_workspace) yyjson_mut_obj_add_bool(d, o, "workspace", false);
  text = mr_main_json(d);
  yyjson_mut_doc_free(d);
  return text;
}

/* A new session: its id alone, so that a shell can take it. */
static void show(struct settings *s, const char *json)
{
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);

  if (s->json)
    printf("%s\n", json);
  else
    printf(MR_FMT "\n", MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "id")));
  yyjson_doc_free(doc);
}

/* ---- fork ---- */

static int fork_(int argc, char **argv)
{
  struct settings s;
  char *in, *out = NULL, id[128];
  const char *at;
  int status = mr_settings_read(&s, &mr_cmd_fork, TAKES_CLIENT | TAKES_COPY | TAKES_FORK, argc, argv);

  if (status) return status;
  if (s.npaths != 1 || !s.paths[0][0] || strlen(s.paths[0]) >= sizeof id) {
    status = mr_main_usage(&mr_cmd_fork, "one session id, or ID@EVENT");
  } else {
    snprintf(id, sizeof id, "%s", s.paths[0]);
    at = strchr(s.paths[0], '@');
    if (at) id[at - s.paths[0]] = '\0';
    in = object((const char *const[][2]){{"session_id", id},
                                         {"event_id", at ? at + 1 : NULL},
                                         {"title", s.title},
                                         {"environment_id", s.environment}},
                4, s.no_workspace);
    status = mr_client_op(&s, "sessions.fork", in, true, &out);
    if (status == EXIT_OK) show(&s, out);
    mr_main_free(in);
  }
  mr_main_free(out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_fork = {
    "fork", "ID[@EVENT]", "a new session whose history is another's, up to an event or up to now",
    CLIENT_OPTIONS
    "  --title TEXT  its title (default \"fork of ...\")\n"
    "  --environment ID\n"
    "                its environment (default: the same)\n"
    "  --no-workspace\n"
    "                without the files of its sandbox\n"
    "Prints the new session's id. Its sandbox is a new one, with the files that are in the old one's "
    "/workspace and\n"
    "/mnt/session/outputs now; a fork at an event has none, as nobody kept what they were then.\n",
    fork_};

/* ---- export ---- */

/* Into a file: whole, or not there. */
static int to_file(struct settings *s, const char *in, const char *path)
{
  char part[4096];
  FILE *f;
  int status;

  if ((size_t)snprintf(part, sizeof part, "%s.part-%ld", path, (long)getpid()) >= sizeof part)
    return mr_main_usage(&mr_cmd_export, "%s: too long", path);
  f = fopen(part, "wxb");
  if (!f) {
    fprintf(stderr, "moonrig: %s: %s\n", path, strerror(errno));
    return EXIT_FAILED;
  }
  status = mr_client_download(s, "sessions.export", in, f);
  if (fclose(f) != 0 || (status == EXIT_OK && rename(part, path) != 0)) {
    fprintf(stderr, "moonrig: %s: %s\n", path, strerror(errno));
    status = EXIT_FAILED;
  }
  if (status != EXIT_OK) unlink(part);
  return status;
}

static int export_(int argc, char **argv)
{
  struct settings s;
  char *in;
  int status = mr_settings_read(&s, &mr_cmd_export, TAKES_CLIENT | TAKES_EXPORT, argc, argv);

  if (status) return status;
  if (s.npaths != 1) {
    status = mr_main_usage(&mr_cmd_export, "one session id");
  } else {
    in = object((const char *const[][2]){{"session_id", s.paths[0]}}, 1, s.no_workspace);
    if (s.output) {
      status = to_file(&s, in, s.output);
    } else {
      status = mr_client_download(&s, "sessions.export", in, stdout);
      if (fflush(stdout) != 0 && status == EXIT_OK) status = EXIT_FAILED;
    }
    mr_main_free(in);
  }
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_export = {
    "export", "ID [-o FILE]", "a session as one file: history, agent, input files, outputs, workspace",
    "  -o FILE       write it there (default: standard output)\n" CLIENT_OPTIONS "  --no-workspace\n"
    "                without the files of its sandbox\n"
    "Without a running server the data directory is opened directly.\n"
    "For example: moonrig export sesn_... -o talk.jsonl\n",
    export_};

/* ---- import ---- */

static int import_(int argc, char **argv)
{
  struct settings s;
  char *in, *out = NULL;
  int status = mr_settings_read(&s, &mr_cmd_import, TAKES_CLIENT | TAKES_COPY, argc, argv);

  if (status) return status;
  if (s.npaths != 1) {
    status = mr_main_usage(&mr_cmd_import, "one file");
  } else {
    in = object((const char *const[][2]){{"title", s.title}, {"environment_id", s.environment}}, 2, false);
    status = mr_client_upload(&s, "sessions.import", in, s.paths[0], &out);
    if (status == EXIT_OK) show(&s, out);
    mr_main_free(in);
  }
  mr_main_free(out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_import = {
    "import", "FILE", "a new session from the file that export wrote (\"-\": standard input)",
    CLIENT_OPTIONS
    "  --title TEXT  its title (default: the one in the file)\n"
    "  --environment ID\n"
    "                its environment (default: the one named \"default\")\n"
    "Prints the new session's id. The same file again makes another session. Nothing runs by it.\n",
    import_};
