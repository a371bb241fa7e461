/* How long a thread may run before the scheduler looks at others: struct sched_attr of sched(7). */
#include "base/base.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>

int clock_slice(uint64_t ns)
{
    struct sched_attr attr = {.size = sizeof(attr)};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) < 0)
        return -1;
    if (attr.sched_policy != SCHED_NORMAL && attr.sched_policy != SCHED_BATCH)
        return 0;
    attr.sched_runtime = ns;
    return (int)syscall(SYS_sched_setattr, 0, &attr, 0);
}
