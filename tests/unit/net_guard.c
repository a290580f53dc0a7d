/* net_guard - which addresses may be dialled, in every form that one can be written. */
#include "kit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "net/guard.h"

static bool ok(const struct mr_guard *g, const char *text)
{
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(443)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};

  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
    return mr_guard_addr_ok(g, (const struct sockaddr *)(const void *)&v4);
  if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1) test_fail(__FILE__, __LINE__, "\"%s\" is no address", text);
  return mr_guard_addr_ok(g, (const struct sockaddr *)(const void *)&v6);
}

static struct mr_guard *made(const char *const *list, int n)
{
  struct mr_str entries[16];
  struct mr_guard *g = NULL;
  struct mr_err err = {0};

  for (int i = 0; i < n; i++)
    entries[i] = mr_str_c(list[i]);
  CHECK_INT(mr_guard_new(&g, &test_sys()->mem, entries, n, "allow_private_hosts", &err), MR_OK);
  return g;
}

TEST(what_is_refused)
{
  static const char *const bad[] = {
      "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.9",
      "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1",
      "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1",
      "255.255.255.255", "168.63.129.16", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
      "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::",
      "2002:a9fe:a9fe::1", "2001::1", "2001:10::1", "2001:db8::1", "3fff::1", "fe80::1", "fec0::1", "fc00::1",
      "fd00:ec2::254", "ff02::1", "100::1", "4000::1"};
  static const char *const good[] = {"1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1",
                                     "126.255.255.255", "128.0.0.1", "169.253.255.255", "172.15.255.255",
                                     "172.32.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
                                     "2606:4700::1111", "2001:4860:4860::8888", "::ffff:1.1.1.1", "64:ff9b::101:101",
                                     "2002:101:101::1"};

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (ok(NULL, bad[i])) test_fail(__FILE__, __LINE__, "%s may be dialled", bad[i]);
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    if (!ok(NULL, good[i])) test_fail(__FILE__, __LINE__, "%s may not be dialled", good[i]);
}

TEST(what_the_operator_lists)
{
  static const char *const list[] = {"10.1.0.0/16", "127.0.0.1", "fd00:1::/32", "registry.lan", "*.Corp.example"};
  struct mr_guard *g = made(list, 5);

  CHECK(ok(g, "10.1.2.3"));
  CHECK(!ok(g, "10.2.0.1"));
  CHECK(ok(g, "127.0.0.1"));
  CHECK(ok(g, "::ffff:127.0.0.1"));
  CHECK(!ok(g, "127.0.0.2"));
  CHECK(ok(g, "fd00:1::5"));
  CHECK(!ok(g, "fd00:2::5"));
  CHECK(mr_guard_host_listed(g, MR_S("Registry.LAN.")));
  CHECK(mr_guard_host_listed(g, MR_S("a.b.corp.example")));
  CHECK(!mr_guard_host_listed(g, MR_S("corp.example")));
  CHECK(!mr_guard_host_listed(g, MR_S("evilcorp.example")));
  CHECK(!mr_guard_host_listed(g, MR_S("xregistry.lan")));
  CHECK(!mr_guard_host_listed(NULL, MR_S("registry.lan")));
  mr_guard_free(&g);
  CHECK_INT(test_allocs(), 0);
}

TEST(bad_entries)
{
  static const char *const bad[] = {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "fd00::/129", "a b",
                                    "http://x", "host:80", "*.*", "*", ".x", "1.2.3.4/8x", "1.2.3"};

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct mr_str entry = mr_str_c(bad[i]);
    struct mr_guard *g = NULL;
    struct mr_err err = {0};
    if (mr_guard_new(&g, &test_sys()->mem, &entry, 1, "allow_private_hosts", &err) != MR_E_INVALID)
      test_fail(__FILE__, __LINE__, "\"%s\" was taken", bad[i]);
    CHECK(!g);
    CHECK_STR(mr_str_c(err.field), "allow_private_hosts");
  }
  CHECK_INT(test_allocs(), 0);
}

TEST(patterns)
{
  CHECK(mr_host_matches(MR_S("example.com"), MR_S("EXAMPLE.com.")));
  CHECK(!mr_host_matches(MR_S("example.com"), MR_S("a.example.com")));
  CHECK(mr_host_matches(MR_S("*.example.com"), MR_S("a.example.com")));
  CHECK(!mr_host_matches(MR_S("*.example.com"), MR_S("example.com")));
  CHECK(!mr_host_matches(MR_S("*.example.com"), MR_S("aexample.com")));
  CHECK(!mr_host_matches(MR_S("example.com"), MR_S("")));
}
