/* What a C library would give, as far as this guest needs it. */
#include "guest.h"

extern const struct guest_clock guest_clock_page;

uint32_t guest_trap(uint32_t request, uint32_t arg)
{
    uint32_t result;
    __asm__ volatile("hlt" : "=a"(result) : "D"(request), "S"(arg) : "rdx", "rbx", "memory", "cc");
    return result;
}

void *memcpy(void *to, const void *from, size_t len)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len)::"memory");
    return start;
}

void *memset(void *to, int byte, size_t len)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(byte) : "memory");
    return start;
}

bool guest_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

const char *guest_find(const char *text, const char *key)
{
    for (; *text; text++) {
        size_t i = 0;
        while (key[i] && text[i] == key[i]) {
            i++;
        }
        if (!key[i]) {
            return text + i;
        }
    }
    return NULL;
}

unsigned guest_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0');
    }
    if (c >= 'A' && c <= 'F') {
        return (unsigned)(c - 'A') + 10;
    }
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

uint64_t guest_number(const char **text)
{
    uint64_t value = 0;
    unsigned base = 10;
    if ((*text)[0] == '0' && (*text)[1] == 'x') {
        base = 16;
        *text += 2;
    }
    for (; guest_digit(**text) < base; (*text)++) {
        value = value * base + guest_digit(**text);
    }
    return value;
}

char *guest_put_text(char *to, const char *text)
{
    while (*text) {
        *to++ = *text++;
    }
    *to = '\0';
    return to;
}

char *guest_put_number(char *to, uint64_t value)
{
    char reversed[20];
    int n = 0;
    do {
        reversed[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (n) {
        *to++ = reversed[--n];
    }
    return to;
}

char *guest_put_hex(char *to, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        *to++ = "0123456789abcdef"[bytes[i] >> 4];
        *to++ = "0123456789abcdef"[bytes[i] & 15];
    }
    return to;
}

void guest_say(const char *text)
{
    while (*text) {
        guest_trap((uint8_t)*text++, 0);
    }
}

uint64_t guest_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

uint64_t guest_clock_ms(void)
{
    const struct guest_clock *clock = &guest_clock_page;
    uint64_t now;
    uint32_t version;
    do {
        version = clock->version;
        guest_barrier();
        uint64_t passed = guest_tsc() - clock->tsc;
        passed = clock->shift < 0 ? passed >> -clock->shift : passed << clock->shift;
        __extension__ unsigned __int128 scaled = passed;
        now = clock->nanoseconds + (uint64_t)(scaled * clock->multiplier >> 32);
        guest_barrier();
    } while ((version & 1) || version != clock->version);
    return now / 1000000;
}
