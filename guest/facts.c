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

static int parse_token(const char *word, size_t len, uint8_t token[static WIRE_TOKEN_SIZE])
{
    if (len != (size_t)2 * WIRE_TOKEN_SIZE)
        return -1;
    for (size_t i = 0; i < WIRE_TOKEN_SIZE; i++) {
        int high = hex_digit(word[2 * i]), low = hex_digit(word[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        token[i] = (uint8_t)(high * 16 + low);
    }
    return 0;
}

int guest_facts_parse(const char *cmdline, struct guest_facts *ret)
{
    struct guest_facts facts = {.ports = WIRE_SERIAL_PORTS};
    size_t len;
    const char *word = find_word(cmdline, "motte.instance=", &len);
    if (!word || len != GUEST_INSTANCE_LEN ||
        strspn(word, "abcdefghijklmnopqrstuvwxyz234567") < GUEST_INSTANCE_LEN)
        return -1;
    memcpy(facts.instance, word, len);
    word = find_word(cmdline, "motte.token=", &len);
    if (word && parse_token(word, len, facts.token))
        return -1;
    facts.has_token = word != NULL;
    word = find_word(cmdline, "motte.ports=", &len);
    if (word && len == 1 && *word >= '1' && *word - '0' <= WIRE_SERIAL_PORTS)
        facts.ports = *word - '0';
    *ret = facts;
    return 0;
}
