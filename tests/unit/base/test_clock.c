/* Clocks: against the system's own. */
#include "base/base.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <time.h>

Test(clock, wall_time_prints_as_the_system_says)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1769860800123, "2026-01-31T12:00:00.123Z"},
        {951782400999, "2000-02-29T00:00:00.999Z"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char out[25];
        clock_format(cases[i].ms, out);
        cr_assert_str_eq(out, cases[i].text);
    }
}

Test(clock, each_clock_is_the_one_it_says)
{
    struct timespec wall, boot, mono;
    int64_t mono_ms = clock_mono_ms(), boot_ms = clock_boot_ms(), wall_ms = clock_wall_ms();
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &wall);
    cr_assert(llabs(mono.tv_sec - mono_ms / 1000) <= 2);
    cr_assert(llabs(boot.tv_sec - boot_ms / 1000) <= 2);
    cr_assert(llabs(wall.tv_sec - wall_ms / 1000) <= 2);
}

Test(clock, time_left_is_never_negative_and_fits_poll)
{
    int64_t now = clock_mono_ms();
    cr_assert_eq(clock_left_ms(now - 1000), 0);
    cr_assert_eq(clock_left_ms(now + (int64_t)INT_MAX * 2), INT_MAX);
    int left = clock_left_ms(now + 60000);
    cr_assert(left > 30000 && left <= 60000, "%d", left);
}
