-- does: Holds the place of a migration that comes from elsewhere.
-- foundation: no
-- transaction: yes
-- breaking: no

select 1;
