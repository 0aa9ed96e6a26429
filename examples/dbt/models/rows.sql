-- A dataset's rows are in data/; of a plain file it is the file.
{% set place = env_var('SAFEGEN_ROWS') %}
select * not like '_safegen_%'
from read_parquet('{{ place if place.endswith(".parquet") else place ~ "/data/*.parquet" }}')
