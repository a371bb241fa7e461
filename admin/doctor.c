/* motte-admin doctor: what this host lacks and what to do about it. */
#include "admin/internal.h"

int admin_doctor(const struct admin *admin, struct error *err)
{
    struct admin_report report = {0};
    admin_doctor_kernel(&report);
    admin_doctor_kvm(&report);
    admin_doctor_programs(admin, &report);
    admin_doctor_cgroup(&report);
    admin_doctor_firewall(admin, &report);
    admin_doctor_users(admin, &report);
    admin_doctor_catalogue(admin, &report);
    if (admin_report_print(&report, admin->json, err) < 0)
        return -1;
    bool works = admin_report_works(&report, ADMIN_FIRECRACKER) ||
                 admin_report_works(&report, ADMIN_EMULATION);
    return works ? 0 : 1;
}
