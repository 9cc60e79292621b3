      FOR picked IN {rows} LOOP
        NEW := picked.whole;
        body := NULL; key_json := NULL; n := NULL; o := NULL;
{row_by_row}
      END LOOP;
