#include "guest/internal.h"
#include <stdlib.h>
#include <string.h>

/* The value of `key` ("motte.x=") as a word of its own; its length in *ret_len. */
static const char *find_word(const char *cmdline, const char *key, size_t *ret_len)
{
    size_t key_len = strlen(key);
    for (const char *at = cmdline; (at = strstr(at, key)); at += key_len) {
        if (at > cmdline && at[-1] != ' ')
            continue;
        *ret_len = strcspn(at + key_len, " \n");
        return at + key_len;
    }
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int guest_hex_parse(const char *text, size_t len, uint8_t *ret, size_t size)
{
    if (len != 2 * size)
        return -1;
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        ret[i] = (uint8_t)(high * 16 + low);
    }
    return 0;
}

bool guest_instance_valid(const char *text, size_t len)
{
    return len == GUEST_INSTANCE_LEN &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz234567") >= GUEST_INSTANCE_LEN;
}

int guest_facts_parse(const char *cmdline, struct guest_facts *ret)
{
    struct guest_facts facts = {.ports = WIRE_SERIAL_PORTS, .init = -1};
    size_t len;
    const char *word = find_word(cmdline, "motte.instance=", &len);
    if (!word || !guest_instance_valid(word, len))
        return -1;
    memcpy(facts.instance, word, len);
    word = find_word(cmdline, "motte.token=", &len);
    if (word && guest_hex_parse(word, len, facts.token, sizeof facts.token))
        return -1;
    facts.has_token = word != NULL;
    word = find_word(cmdline, "motte.ports=", &len);
    if (word && len == 1 && *word >= '1' && *word - '0' <= WIRE_SERIAL_PORTS)
        facts.ports = *word - '0';
    *ret = facts;
    return 0;
}
